"""POST /v1/responses."""

from typing import Annotated, Any, Literal

from pydantic import Field

from composer.http.openapi.headers import ANSWERED
from composer.http.openapi.operation import ASKING, Operation
from composer.http.openapi.retrieval import RetrievalAsked, RetrievalTold
from composer.http.openapi.shape import Shape
from composer.http.requests import MAX_MESSAGES, MAX_TOKENS

__all__ = ["RESPONSES"]


class InputText(Shape):
    """A piece of text."""

    type: Literal["input_text", "output_text"]
    text: str


class InputRefusal(Shape):
    """What an expert would not say."""

    type: Literal["refusal"]
    refusal: str


class InputImage(Shape):
    """A picture."""

    type: Literal["input_image"]
    image_url: str


_Content = str | list[InputText | InputRefusal | InputImage]


class InputMessage(Shape):
    """One turn."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content


class FunctionToolCall(Shape):
    """A call of a function that an expert asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(Shape):
    """What came of it."""

    type: Literal["function_call_output"]
    call_id: str
    output: _Content


class ReasoningItem(Shape):
    """Notes on an earlier turn; they are passed over."""

    type: Literal["reasoning"]


class FunctionTool(Shape):
    """A function that an expert may ask to call."""

    type: Literal["function"]
    name: str


class ToolChoiceFunction(Shape):
    """The one to call."""

    type: Literal["function"]
    name: str


class TextFormat(Shape):
    """Whether the answer is plain text or JSON, and of which schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"


class ResponseText(Shape):
    """How the answer is written."""

    format: TextFormat | None = None


_Item = InputMessage | FunctionToolCall | FunctionCallOutput | ReasoningItem
_Items = Annotated[list[_Item], Field(min_length=1, max_length=MAX_MESSAGES)]


class CreateResponse(Shape):
    """A text, or the items of a conversation, to answer; nothing is stored."""

    model: str = Field(description="A composition, an expert, or `auto`.")
    input: Annotated[str, Field(pattern=r"\S")] | _Items
    instructions: str | None = Field(None, description="A system turn before the input.")
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceFunction | None = None
    text: ResponseText | None = None
    max_tool_calls: int | None = Field(None, ge=0)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = None
    retrieval: RetrievalAsked = None


class ResponseUsage(Shape):
    """Tokens of the call that answered."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class OutputItem(Shape):
    """A message, which has `content`, or a function call, which has `name` and `arguments`."""

    id: str
    type: Literal["message", "function_call"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] | None = None
    content: list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class ResponseError(Shape):
    """Why there is no more."""

    code: str
    message: str


class Response(Shape):
    """The answer, and what was in force when it was given."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "failed", "in_progress", "incomplete"]
    error: ResponseError | None
    incomplete_details: dict[str, str] | None
    model: str = Field(description="The expert that answered.")
    output: list[OutputItem]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_logprobs: int | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: dict[str, Any]
    metadata: dict[str, str]
    reasoning: dict[str, Any]
    max_tool_calls: int | None
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    previous_response_id: None
    service_tier: None
    background: Literal[False]
    store: Literal[False]
    truncation: Literal["disabled"]
    retrieval: RetrievalTold | None = None


class ResponseStreamEvent(Shape):
    """One event of a stream, which is named by its type; what else it has depends on that."""

    type: str = Field(description="`response.created`, `response.output_text.delta` ...")
    sequence_number: int
    response: Response | None = None
    item: OutputItem | None = None
    part: dict[str, Any] | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    name: str | None = None
    arguments: str | None = None
    logprobs: list[dict[str, Any]] | None = None


RESPONSES = Operation(
    id="createResponse",
    summary="Answer a text or a conversation; nothing is stored.",
    ask=CreateResponse,
    answer=Response,
    event=ResponseStreamEvent,
    errors=ASKING,
    headers=ANSWERED,
)
