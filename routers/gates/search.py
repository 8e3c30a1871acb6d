"""What a cheap search of a store tells before anything is read: how near the nearest passages are.

Searching costs milliseconds, reading the passages costs tokens; so a gate may look first.
"""

from collections.abc import Sequence

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["DEEPEST", "SEARCH", "search_features"]

DEEPEST = 5
SEARCH = (
    "top",  # similarity of the query to the best passage
    "gap",  # by how much the best one leads the last of the first five
    "mean",  # over the first five
    "margin",  # by which the chosen retriever leads the next, where one is chosen
)


def search_features(
    similarity: Sequence[float], margin: float | None = None, depth: int = DEEPEST
) -> FloatArray:
    """Return the features `SEARCH` (4,); NaN where there is nothing to tell.

    Args:
        similarity: of the best passages, best first.
        depth: how many of them ``gap`` and ``mean`` are about; of fewer they are not known.
        margin: expected quality of the retriever that searched less that of the next one.
    """
    first = [float(value) for value in similarity[:depth]]
    told = np.nan if margin is None else float(margin)
    if not first:
        return np.array([np.nan, np.nan, np.nan, told])
    if len(first) < depth:
        return np.array([first[0], np.nan, np.nan, told])
    return np.array([first[0], first[0] - first[-1], sum(first) / depth, told])
