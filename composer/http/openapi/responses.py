"""POST /v1/responses."""

from typing import Any, Literal

from pydantic import Field

from composer.http.openapi.operation import ASKING, Operation
from composer.http.openapi.shape import Shape

__all__ = ["RESPONSES"]


class CreateResponse(Shape):
    """A text, or turns of a conversation, to answer; nothing is stored."""

    model: str = Field(description="A composition, an expert, or `auto`.")
    input: str | list[dict[str, Any]]
    instructions: str | None = Field(None, description="A system turn before the input.")
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stream: bool | None = None


class OutputItem(Shape):
    """A message or a tool call."""

    type: str


class Response(Shape):
    """The answer."""

    id: str
    object: Literal["response"]
    created_at: float
    status: str
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    instructions: str | list[dict[str, Any]] | None
    model: str = Field(description="The expert that answered.")
    tools: list[dict[str, Any]]
    output: list[OutputItem]
    parallel_tool_calls: bool
    metadata: dict[str, Any] | None
    tool_choice: str | dict[str, Any]
    temperature: float | None
    top_p: float | None


class ResponseStreamEvent(Shape):
    """One event of a stream; its name is its type."""

    type: str = Field(description="`response.created`, `response.output_text.delta` ...")
    sequence_number: int


RESPONSES = Operation(
    id="createResponse",
    summary="Answer a text or a conversation, without storing it.",
    ask=CreateResponse,
    answer=Response,
    event=ResponseStreamEvent,
    errors=ASKING,
)
