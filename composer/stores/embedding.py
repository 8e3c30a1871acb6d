"""Embed the passages that were never embedded, in batches that are each safe once it is done."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from composer.stores.indexed_text import indexed_text
from composer.stores.passage_file import PassageFile
from composer.stores.vectors import Vectors
from experts_registry.types import Embedder, FloatArray

__all__ = ["BATCH", "Batch", "Embedding", "embed_missing", "here", "missing", "passage_digest"]

BATCH = 128  # passages that are embedded and kept together: what a kill may cost


def passage_digest(embedder: Embedder) -> str:
    """Identify how passages are embedded; see `Embedder`."""
    digest: str = getattr(embedder, "passage_digest", embedder.digest)
    return digest


@dataclass(frozen=True)
class Batch:
    """Passages that are embedded together, by their rows."""

    keys: tuple[bytes, ...]
    texts: tuple[str, ...]


# Yields each batch with its vectors, in any order, as soon as they are there.
Results = AbstractContextManager[Iterable[tuple[Batch, FloatArray]]]
Embedding = Callable[[Iterator[Batch]], Results]


def here(embedder: Embedder) -> Embedding:
    """Embed in this process."""

    def embedded(batches: Iterator[Batch]) -> Results:
        return nullcontext((b, embedder.embed(b.texts, role="passage")) for b in batches)

    return embedded


def missing(vectors: Vectors, keys: Sequence[bytes], passages: PassageFile) -> list[list[int]]:
    """Return the rows that must be embedded, in batches; equal texts once.

    Texts of similar length go together, as a batch is padded to its longest; the batches come in
    a drawn order, alike at every run, so that the time left can be told from those done.
    """
    rows = {key: row for row, key in enumerate(keys) if key not in vectors}
    order = sorted(rows.values(), key=lambda row: int(passages.sizes[row]))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [batches[i] for i in np.random.default_rng(0).permutation(len(batches))]


def embed_missing(
    vectors: Vectors,
    batches: Sequence[Sequence[int]],
    keys: Sequence[bytes],
    passages: PassageFile,
    *,
    embedding: Embedding,
    on_batch: Callable[[str], None],
) -> None:
    """Embed batches of rows and keep each at once."""
    todo = (
        Batch(tuple(keys[row] for row in rows), tuple(indexed_text(passages[row]) for row in rows))
        for rows in batches
    )
    with embedding(todo) as embedded:
        for batch, x in embedded:
            vectors.add(batch.keys, x)
            on_batch(f"{len(vectors)} texts")
