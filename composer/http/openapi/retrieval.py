"""POST /v1/retrieve, and the key ``retrieval`` of other requests and answers."""

from typing import Annotated, Literal

from pydantic import Field

from composer.http.openapi.decision_shapes import Decision
from composer.http.openapi.embeddings import EmbeddingUsage
from composer.http.openapi.operation import POSTING, Operation
from composer.http.openapi.shape import Shape
from composer.http.retrieving import MAX_PASSAGES

__all__ = ["RETRIEVE", "RetrievalAsked", "RetrievalTold"]

_Mode = Literal["auto", "never", "always"]


class RetrievalWanted(Shape, extra="forbid"):
    """Whether passages are put before the question, and from where."""

    mode: _Mode | None = Field(None, description="By default as the composition says.")
    store: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="By default every one of them."
    )


RetrievalAsked = Annotated[
    _Mode | RetrievalWanted | None, Field(description="By default as the composition says.")
]


class RetrieveRequest(Shape):
    """What to look for."""

    query: str = Field(pattern=r"\S")
    store: str | None = Field(None, description="May be left out where there is only one.")
    k: int | None = Field(None, ge=1, le=MAX_PASSAGES, description="Passages; by default 10.")
    retriever: str | None = Field(None, description="By default the store's router chooses.")


class FoundPassage(Shape):
    """A text with where it came from and how well it matched."""

    object: Literal["passage"]
    index: int = Field(description="From 1 on; citations use it.")
    id: str
    text: str
    title: str
    store: str
    source: str = Field(description="The document that it was cut from.")
    start: int = Field(description="Its first character there.")
    end: int = Field(description="Behind its last.")
    score: float = Field(description="Only comparable within one search.")
    retrievers: list[str] = Field(description="Who found it.")


class RetrieveResponse(Shape):
    """Passages, the best first."""

    object: Literal["list"]
    store: str
    data: list[FoundPassage]
    decision: Decision  # type: ignore[valid-type]
    usage: EmbeddingUsage


class CitedPassage(Shape):
    """Where an answer cites a passage."""

    passage: int = Field(description="Its index.")
    start: int = Field(description="Of the mark in the answer's text.")
    end: int


class RetrievalTold(Shape):
    """What was retrieved for an answer, or why nothing was."""

    store: str | None
    stage: str = Field(description="Who decided: request, file, gate, draft, guard or failure.")
    reason: str
    retrievers: list[str]
    passages: list[FoundPassage]
    citations: list[CitedPassage]


RETRIEVE = Operation(
    id="createRetrieval",
    summary="Find passages of a store for a query.",
    ask=RetrieveRequest,
    answer=RetrieveResponse,
    errors=(*POSTING, 404, 502, 504),
    headers=("x-composer-expert", "x-composer-generation"),
)
