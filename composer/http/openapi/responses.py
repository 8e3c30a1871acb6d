"""POST /v1/responses."""

from typing import Any, Literal

from pydantic import Field

from composer.http.openapi.headers import ANSWERED
from composer.http.openapi.operation import ASKING, Operation
from composer.http.openapi.shape import Shape
from composer.http.requests import MAX_MESSAGES, MAX_TOKENS

__all__ = ["RESPONSES"]


class CreateResponse(Shape):
    """A text, or the items of a conversation, to answer; nothing is stored."""

    model: str = Field(description="A composition, an expert, or `auto`.")
    input: str | list[dict[str, Any]] = Field(
        description=f"Items: messages, function calls and their outputs, at most {MAX_MESSAGES}."
    )
    instructions: str | None = Field(None, description="A system turn before the input.")
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = Field(None, description="Those of type `function`.")
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = Field(None, description="The format of the answer.")
    stream: bool | None = None


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
