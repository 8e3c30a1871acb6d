"""POST /v1/rerank and /v2/rerank: what Cohere's, Jina's and their like have in common."""

from typing import Annotated, Any

from pydantic import Field

from composer.http.openapi.operation import POSTING, Operation
from composer.http.openapi.shape import Shape

__all__ = ["RERANK", "RERANK_2"]


class RerankDocument(Shape):
    """A text."""

    text: str


class RerankRequest(Shape):
    """Documents to put in the order of their relevance."""

    model: str
    query: str
    documents: Annotated[list[str | RerankDocument], Field(min_length=1)]
    top_n: int | None = Field(None, ge=1, description="Leave out the others.")
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1)


class RerankResult(Shape):
    """How relevant one document is."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankResponse(Shape):
    """Documents, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: dict[str, Any]
    meta: dict[str, Any]


_ERRORS = (*POSTING, 404, 502, 503, 504)
RERANK = Operation(
    id="createRerank",
    summary="Order documents by their relevance to a query.",
    ask=RerankRequest,
    answer=RerankResponse,
    errors=_ERRORS,
)
RERANK_2 = Operation(
    id="createRerankV2",
    summary="The same as /v1/rerank.",
    ask=RerankRequest,
    answer=RerankResponse,
    errors=_ERRORS,
)
