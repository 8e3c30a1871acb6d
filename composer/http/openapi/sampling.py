"""What chats and text completions have in common: how to write, and what it took."""

from typing import Annotated, Literal

from pydantic import Field

from composer.http.openapi.retrieval import RetrievalAsked
from composer.http.openapi.shape import Shape
from composer.http.requests import MAX_ANSWERS, MAX_TOKENS

__all__ = ["CompletionUsage", "FinishReason", "StreamOptions", "Written"]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
_Stop = Annotated[list[str], Field(max_length=4)]


class StreamOptions(Shape):
    """What a stream holds besides the answer."""

    include_usage: bool | None = Field(None, description="End with the usage, without choices.")


class Written(Shape):
    """How an answer is written."""

    model: str = Field(description="A composition, an expert, or `auto`.")
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS, description="Answers.")
    max_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    stop: str | _Stop | None = Field(None, description="Texts that end the answer.")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    retrieval: RetrievalAsked = None


class CompletionUsage(Shape):
    """Tokens of the calls that answered."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = Field(
        None, description="As a remote expert told it: `cached_tokens` ..."
    )
    completion_tokens_details: dict[str, int] | None = Field(
        None, description="As a remote expert told it: `reasoning_tokens` ..."
    )
