"""What a cheap search of a store tells before anything is read: how near the nearest passages are.

Searching costs milliseconds, reading the passages costs tokens; so a gate may look first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["DEEPEST", "FLOOR", "SEARCH", "floor_of", "near", "search_features"]

DEEPEST = 5
FLOOR = "search.floor"
_FARTHEST = 0.05  # share of the training queries whose best passage counts as too far away
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


def floor_of(search: FloatArray) -> FloatArray:
    """Return, by store (s,), how near a best passage must be to be read, from (n, s, 4)."""
    top = search[:, :, 0]
    known = np.where(np.isnan(top).all(axis=0), -np.inf, top)  # a store that was not searched
    floor: FloatArray = np.nanquantile(known, _FARTHEST, axis=0, method="lower")
    return floor


def near(search: FloatArray, state: Mapping[str, FloatArray]) -> NDArray[np.bool_]:
    """Return whether there is something near enough to read (n, s); also where nobody looked."""
    floor = state.get(FLOOR, np.full(search.shape[1], -np.inf))  # a gate that reads no search
    return ~(search[:, :, 0] < floor)
