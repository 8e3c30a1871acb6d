"""Put queries into batches, and say which passages of a batch must not be pushed away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Learning", "Rows", "batches"]

Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Learning:
    """What batches are drawn from.

    Args:
        queries: rows of queries to train on.
        relevant: of every query there is, row of a passage -> grade.
        negatives: of each query to train on, rows of passages that are hard to tell apart.
    """

    queries: Sequence[int]
    relevant: Sequence[Mapping[int, int]]
    negatives: Sequence[Rows]


@dataclass(frozen=True)
class Batch:
    """Rows of what is compared.

    Args:
        queries: (b,) of queries.
        passages: (1 + negatives, b) of passages; the first line holds the relevant ones.
        is_relevant: (b, (1 + negatives) * b) whether a passage that stands there as a negative
            answers the query all the same.
    """

    queries: Rows
    passages: Rows
    is_relevant: NDArray[np.bool_]


def batches(learning: Learning, *, size: int, negatives: int, seed: int) -> Iterator[Batch]:
    """Yield batches without end: each query once, with one of its passages, then all again."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(learning.queries))
        for part in np.array_split(order, max(1, round(len(order) / size))):
            yield _batch(learning, part, negatives, rng)
        epoch += 1


def _batch(learning: Learning, part: Rows, negatives: int, rng: np.random.Generator) -> Batch:
    queries = np.array([learning.queries[i] for i in part])
    positives = [rng.choice(list(learning.relevant[query])) for query in queries]
    columns = [
        _drawn(learning.negatives[i], negatives, own, rng)
        for i, own in zip(part, positives, strict=True)
    ]
    passages = np.vstack([positives, np.array(columns).T.reshape(negatives, len(part))])
    flat = passages.ravel()
    known = np.array([[row in learning.relevant[query] for row in flat] for query in queries])
    known[np.arange(len(part)), np.arange(len(part))] = False  # what it is to find
    return Batch(queries, passages, known)


def _drawn(found: Rows, count: int, own: int, rng: np.random.Generator) -> Rows:
    """Draw negatives; where there are too few, the relevant passage fills up and is masked."""
    few = rng.permutation(found)[:count]
    return np.concatenate([few, np.full(count - len(few), own)])
