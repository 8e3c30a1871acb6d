"""POST /v1/completions."""

from typing import Annotated, Literal

from pydantic import Field

from composer.http.completions import MAX_PROMPTS
from composer.http.openapi.headers import ANSWERED
from composer.http.openapi.operation import ASKING, Operation
from composer.http.openapi.sampling import CompletionUsage, FinishReason, Written
from composer.http.openapi.shape import Shape
from composer.http.requests import MAX_TOKENS, TEXT_TOKENS

__all__ = ["COMPLETIONS"]

_Text = Annotated[str, Field(pattern=r"\S")]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=MAX_PROMPTS)]
_Tokens = Annotated[list[int], Field(min_length=1)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_PROMPTS)]


class CreateCompletionRequest(Written):
    """Texts to go on with; token ids need an expert whose tokenizer is here."""

    prompt: _Text | _Texts | _Tokens | _TokenLists
    max_tokens: int | None = Field(TEXT_TOKENS, ge=0, le=MAX_TOKENS)
    echo: bool | None = Field(None, description="Repeat the prompt before the answer.")
    best_of: int | None = Field(None, ge=0, le=20, description="At least `n`; not streamed.")
    logprobs: int | None = Field(None, ge=0, le=5)


class TextLogprobs(Shape):
    """How likely the text was, token by token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Shape):
    """One text, or a piece of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class CreateCompletionResponse(Shape):
    """The texts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str = Field(description="The expert that answered.")
    choices: list[TextChoice]
    usage: CompletionUsage


class TextStreamChoice(TextChoice):
    """A piece of a text."""

    finish_reason: FinishReason | None  # type: ignore[assignment] # null until the last piece


class CreateCompletionStreamResponse(Shape):
    """One event of a stream; all have one id. After the last comes the text `[DONE]`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str = Field(description="The expert that answers.")
    choices: list[TextStreamChoice]
    usage: CompletionUsage | None = None


COMPLETIONS = Operation(
    id="createCompletion",
    summary="Complete texts; each is asked as a conversation of one user turn.",
    ask=CreateCompletionRequest,
    answer=CreateCompletionResponse,
    event=CreateCompletionStreamResponse,
    errors=ASKING,
    headers=ANSWERED,
)
