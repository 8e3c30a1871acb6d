"""What the expert file may say of stores, and of when a composition retrieves from them."""

from typing import Annotated, Literal

from pydantic import Field

from experts_registry.frozen import Frozen, Name

__all__ = ["ChunkSpec", "IndexSpec", "RetrievalSpec", "StoreSpec"]


class ChunkSpec(Frozen):
    """How documents are cut into passages; a JSON line that is short enough stays whole."""

    words: int = Field(200, ge=8, le=4096, description="Most words of a passage.")
    overlap: int = Field(40, ge=0, description="Words that a passage repeats of the one before it.")


class IndexSpec(Frozen):
    """How vectors are searched."""

    type: Literal["auto", "flat", "ivf", "hnsw", "pq"] = Field(
        "auto",
        description="flat compares with every vector; auto is flat for a small store and hnsw for "
        "a large one; ivf and pq need less memory or time to build and find a little less.",
    )
    clusters: int | None = Field(None, ge=1, description="Of ivf and pq; by default by size.")
    probes: int | None = Field(None, ge=1, description="Clusters that a search of ivf or pq reads.")
    links: int = Field(32, ge=4, le=128, description="Of a vector in hnsw.")
    effort: int = Field(128, ge=1, le=4096, description="Vectors that a search of hnsw keeps.")


class StoreSpec(Frozen):
    """A collection of passages that retrievers search."""

    name: Name = Field(description="How compositions call it.")
    passages: str = Field(
        description="A JSONL file, or a folder of text, Markdown, PDF and JSONL files; relative "
        "to this file."
    )
    retrievers: tuple[str, ...] = Field(
        min_length=1, description="Retrievers that index it; several: one is chosen per query."
    )
    router: str | None = Field(
        None,
        description="Folder of a trained pilot router that chooses among them; without one the "
        "first is asked.",
    )
    folder: str | None = Field(
        None, description="Where it is built; by default stores/<name> beside this file."
    )
    chunk: ChunkSpec = Field(ChunkSpec(), description="How documents are cut into passages.")
    index: IndexSpec = Field(IndexSpec(), description="How its vectors are searched.")
    lexical: bool = Field(
        False, description="Search by words (BM25) too, and fuse the lists by reciprocal rank."
    )
    fuse: int = Field(1, ge=1, description="How many retrievers' lists are fused.")
    reranker: str | None = Field(
        None, description="A reranker that orders what was found; by default nobody."
    )
    candidates: int = Field(
        50, ge=1, le=1000, description="Passages of each list that are fused or reranked."
    )


class RetrievalSpec(Frozen):
    """Where a composition may retrieve from, and what decides whether it does."""

    store: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="A store of this file, or several, of which one is chosen per query."
    )
    when: Literal["auto", "never", "always"] = Field(
        "auto",
        description="auto asks the gate, and retrieves for every query where none is trained.",
    )
    gate: str | None = Field(None, description="Folder of a trained gate.")
    k: int = Field(3, ge=1, le=100, description="Passages that are put before the question.")
    seconds: float = Field(
        5.0, gt=0, description="Longest wait for passages; after it one answers without them."
    )

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that it may retrieve from."""
        return (self.store,) if isinstance(self.store, str) else self.store
