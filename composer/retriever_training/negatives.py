"""Find passages that look relevant and are not: they teach more than random ones.

Passages that score nearly as high as a relevant one are left out, because many of them are
relevant and nobody said so. Moreira et al., "NV-Retriever: Improving text embedding models with
effective hard-negative mining", arXiv 2407.15831 (there TopK-PercPos):

    score(negative) < ceiling * score(the least similar relevant passage)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["hard_negatives"]

_QUERIES_AT_ONCE = 256


def hard_negatives(
    queries: FloatArray,
    passages: FloatArray,
    relevant: Sequence[Mapping[int, int]],
    *,
    count: int,
    ceiling: float,
) -> list[NDArray[np.int64]]:
    """Return rows of passages for each query, the most similar first; fewer where few are left.

    Args:
        queries: (n, d), unit rows.
        passages: (p, d), unit rows.
        relevant: of each query, the rows that are no negatives.
        count: of negatives for a query.
        ceiling: share of a relevant passage's score that a negative stays below.
    """
    found = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        scores = queries[start : start + _QUERIES_AT_ONCE] @ passages.T  # (some, p)
        for row, known in zip(scores, relevant[start:], strict=False):
            positives = list(known)
            row[row >= ceiling * row[positives].min()] = -np.inf
            row[positives] = -np.inf
            order = np.argsort(-row, kind="stable")[:count]
            found.append(order[np.isfinite(row[order])].astype(np.int64))
    return found
