"""POST /v1/rerank and /v2/rerank: what Cohere's, Jina's and their like have in common."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from composer.http.openapi.embeddings import EMBEDDINGS, EmbeddingUsage
from composer.http.openapi.operation import Operation
from composer.http.openapi.shape import Shape
from composer.http.rerank import MAX_DOCUMENTS

__all__ = ["RERANK", "RERANK_2"]

_Text = Annotated[str, Field(min_length=1)]


class RerankDocument(Shape):
    """A text, with whatever else the client keeps beside it."""

    text: _Text


class RerankRequest(Shape):
    """Documents to put in the order of their relevance."""

    model: str = Field(description="A retriever.")
    query: str = Field(pattern=r"\S")
    documents: list[_Text | RerankDocument] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(None, ge=1, description="Leave out the others.")
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Read no more than these.")


class RerankResult(Shape):
    """How relevant one document is."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankResponse(Shape):
    """Documents, the most relevant first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: EmbeddingUsage
    meta: dict[str, Any]


RERANK = Operation(
    id="createRerank",
    summary="Order documents by their relevance to a query.",
    ask=RerankRequest,
    answer=RerankResponse,
    errors=EMBEDDINGS.errors,
    headers=EMBEDDINGS.headers,
)
RERANK_2 = replace(RERANK, id="createRerankV2")
