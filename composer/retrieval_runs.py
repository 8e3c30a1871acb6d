"""Search a collection for judged queries: a built store, or a corpus that is given directly."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from composer.judged import JudgedQuery
from composer.retrieval_measures import Ranked
from composer.stores.embedding import passage_digest
from composer.stores.store import Store
from experts_registry.index import VectorIndex
from experts_registry.retrieval_schema import IndexSpec
from experts_registry.types import Embedder, FloatArray

__all__ = ["Collection", "Corpus", "StoreCollection", "ranked"]

DEPTH = 100  # documents of a list: Recall@100 needs them
_PASSAGES = 4  # of one document that may come before the next one
_BATCH = 256


class Collection(Protocol):
    """What is searched."""

    @property
    def digest(self) -> str:
        """Identify its content."""
        ...

    @property
    def documents(self) -> Sequence[str]:
        """The judged id of each row."""
        ...

    def index(self, embedder: Embedder) -> VectorIndex:
        """Return the index of what this retriever embeds."""
        ...


@dataclass(frozen=True)
class StoreCollection:
    """A store; its passages are judged by the document that they were cut from."""

    store: Store

    @property
    def digest(self) -> str:
        """Identify its content."""
        return self.store.digest

    @cached_property
    def documents(self) -> Sequence[str]:
        """The document of each passage."""
        passages = (self.store.passage(row) for row in range(len(self.store)))
        return [passage.source or passage.id for passage in passages]

    def index(self, embedder: Embedder) -> VectorIndex:
        """Return the store's index of this retriever; errors as of `Store.index`."""
        return self.store.index(embedder)


@dataclass(frozen=True)
class Corpus:
    """Passages by id, embedded when the first retriever of a kind searches them.

    Args:
        passages: id -> text.
        folder: where embeddings are kept for the next time; nowhere by default.
    """

    passages: Mapping[str, str]
    folder: Path | None = None
    _indexes: dict[str, VectorIndex] = field(default_factory=dict, repr=False)

    @cached_property
    def digest(self) -> str:
        """Identify the content."""
        return hashlib.sha256(json.dumps([*self.passages.items()]).encode()).hexdigest()

    @cached_property
    def documents(self) -> Sequence[str]:
        """The ids."""
        return list(self.passages)

    def index(self, embedder: Embedder) -> VectorIndex:
        """Return a flat index; it is made once for all retrievers that embed passages alike."""
        key = passage_digest(embedder)
        if key not in self._indexes:
            self._indexes[key] = VectorIndex.build(self._embedded(embedder, key), _FLAT)
        return self._indexes[key]

    def _embedded(self, embedder: Embedder, key: str) -> FloatArray:
        name = hashlib.sha256(f"{self.digest}:{key}".encode()).hexdigest()[:16]
        path = None if self.folder is None else self.folder / f"passages-{name}.npy"
        if path is not None and path.exists():
            return np.asarray(np.load(path))
        texts = list(self.passages.values())
        parts = [embedder.embed(part, role="passage") for part in _batches(texts)]
        x: FloatArray = np.concatenate(parts)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, x)
            partial.replace(path)
        return x


_FLAT = IndexSpec.model_validate({"type": "flat"})


def ranked(
    collection: Collection, embedder: Embedder, queries: Sequence[JudgedQuery]
) -> list[Ranked]:
    """Return the best 100 documents for each query; one that is the query itself is left out."""
    x = embedder.embed([query.text for query in queries], role="query")
    documents = collection.documents
    several = _PASSAGES if len(set(documents)) < len(documents) else 1
    rows, scores = collection.index(embedder).search(x, several * DEPTH + 1)
    return [
        _documents(documents, own.tolist(), score.tolist(), query.id)
        for own, score, query in zip(rows, scores, queries, strict=True)
    ]


def _documents(
    documents: Sequence[str], rows: Sequence[int], scores: Sequence[float], query: str
) -> Ranked:
    """Return document -> its best score, best first."""
    found: dict[str, float] = {}
    for row, score in zip(rows, scores, strict=True):
        if row >= 0 and (name := documents[row]) != query and len(found) < DEPTH:
            found.setdefault(name, score)
    return found


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _BATCH):
        yield texts[start : start + _BATCH]
