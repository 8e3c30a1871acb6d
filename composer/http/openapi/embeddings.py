"""POST /v1/embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from composer.http.embeddings import MAX_TEXTS
from composer.http.openapi.operation import POSTING, Operation
from composer.http.openapi.shape import Shape

__all__ = ["EMBEDDINGS"]

_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=MAX_TEXTS)]
_Tokens = Annotated[list[int], Field(min_length=1)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_TEXTS)]


class CreateEmbeddingRequest(Shape):
    """Texts to embed; token ids need a retriever whose tokenizer is here."""

    model: str = Field(description="A retriever.")
    input: _Text | _Texts | _Tokens | _TokenLists
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="No more than the retriever has.")
    input_type: Literal["query", "passage"] | None = Field(None, description="By default passage.")


class Embedding(Shape):
    """One text's."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="A text: base64 of little-endian float32.")


class EmbeddingUsage(Shape):
    """Tokens of the texts, estimated."""

    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(Shape):
    """The embeddings."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


EMBEDDINGS = Operation(
    id="createEmbedding",
    summary="Embed texts.",
    ask=CreateEmbeddingRequest,
    answer=CreateEmbeddingResponse,
    errors=(*POSTING, 404, 502, 504),
    headers=("x-composer-expert", "x-composer-generation"),
)
