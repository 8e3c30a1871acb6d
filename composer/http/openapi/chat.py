"""POST /v1/chat/completions."""

from typing import Any, Literal

from pydantic import Field

from composer.http.openapi.headers import ANSWERED
from composer.http.openapi.operation import ASKING, Operation
from composer.http.openapi.retrieval import RetrievalTold
from composer.http.openapi.sampling import CompletionUsage, FinishReason, Written
from composer.http.openapi.shape import Shape
from composer.http.requests import MAX_MESSAGES

__all__ = ["CHAT", "STORED", "CreateChatCompletionRequest"]


class ContentPart(Shape):
    """A piece of a turn; the rest of it depends on its type."""

    type: str = Field(description="`text`, `image_url` ...")


class ChatMessage(Shape):
    """One turn."""

    role: str = Field(
        description="`system`, `developer`, `user`, `assistant`, `tool` or `function`; a remote "
        "expert may know others."
    )
    content: str | list[ContentPart] | None = None


class CreateChatCompletionRequest(Written):
    """A conversation to answer; the last user turn must have some text."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Needs `logprobs: true`.")


class FunctionCall(Shape):
    """Which function an expert would call, and with what."""

    name: str
    arguments: str = Field(description="A JSON object, as it was generated.")


class ChatCompletionMessageToolCall(Shape):
    """One tool that an expert would call."""

    id: str
    type: str = Field(description="`function`, mostly.")
    function: FunctionCall | None = None


class ChatCompletionResponseMessage(Shape):
    """What an expert says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ChatCompletionMessageToolCall] | None = None


class TopLogprob(Shape):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatCompletionTokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Shape):
    """How likely the answer was, token by token."""

    content: list[ChatCompletionTokenLogprob] | None
    refusal: list[ChatCompletionTokenLogprob] | None


class ChatChoice(Shape):
    """One answer."""

    index: int
    message: ChatCompletionResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class CreateChatCompletionResponse(Shape):
    """The answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str = Field(description="The expert that answered.")
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: str | None = Field(None, description="As a remote expert told it.")
    service_tier: str | None = Field(None, description="As a remote expert told it.")
    retrieval: RetrievalTold | None = None


class ChatCompletionStreamResponseDelta(Shape):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatStreamChoice(Shape):
    """A piece of one answer."""

    index: int
    delta: ChatCompletionStreamResponseDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class CreateChatCompletionStreamResponse(Shape):
    """One event of a stream; all have one id. After the last comes the text `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str = Field(description="The expert that answers.")
    choices: list[ChatStreamChoice]
    usage: CompletionUsage | None = None
    retrieval: RetrievalTold | None = Field(None, description="On the last piece.")


class ChatCompletionList(Shape):
    """The completions that are kept: none."""

    object: Literal["list"]
    data: list[CreateChatCompletionResponse]
    first_id: str | None
    last_id: str | None
    has_more: bool


CHAT = Operation(
    id="createChatCompletion",
    summary="Answer a conversation.",
    ask=CreateChatCompletionRequest,
    answer=CreateChatCompletionResponse,
    event=CreateChatCompletionStreamResponse,
    errors=ASKING,
    headers=ANSWERED,
)
STORED = Operation(
    id="listChatCompletions", summary="List the answers that are kept.", answer=ChatCompletionList
)
