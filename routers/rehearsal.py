"""What a router would have said of its own training queries, had it not seen them.

Twice: with a random part of the queries left out, which is what familiar queries will meet; and
with whole categories left out, which is what queries of a new kind will meet. The guard, the
temperature of the selection policies and the calibration in reports learn from it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.clustering import kmeans
from routers.data import RoutingDataset
from routers.features import without_features
from routers.novelty import closeness, held_out_closeness
from routers.splits import folds

if TYPE_CHECKING:
    from routers.base import Router

__all__ = ["FOLDS", "rehearse"]

IntArray = NDArray[np.integer[Any]]
FOLDS = 5
_AWAY = 6  # parts into which the categories are dealt
_CENTRES, _PER_CENTRE = 256, 8

Rows = NDArray[np.bool_]


def rehearse(
    router: "Router", z: FloatArray, data: RoutingDataset, *, keep: bool = False
) -> Mapping[str, FloatArray]:
    """Return state arrays about the n training queries.

    ``rehearsal.held`` and ``.away`` (n, m): utility with random parts, and with categories left
    out. ``.near`` and ``.far`` (n,): cosine to the nearest centre, of others of the same kind too,
    and of other kinds alone. ``.outcome`` (n, m), ``.kind`` (n,), ``.centres`` (k, d).

    Args:
        router: fitted on the data.
        z: (n, d + f) the queries as it embeds them.
        data: the outcomes of its experts.
        keep: also keep ``rehearsal.x`` (n, d), the queries themselves.
    """
    x = without_features(z)

    def learn(seen: Rows, asked: Rows) -> FloatArray:
        part = data.select(seen)
        if np.isnan(part.quality).all():
            return np.zeros((int(asked.sum()), len(data.experts)))
        fresh = router.like().fit_embedded(z[seen], part)
        return fresh.predict_embedded(z[asked], experts=data.experts, cost_weight=0).utility

    held = router.state_.get("held")  # some know it from fitting
    if held is None or held.shape != data.quality.shape:
        held = _left_out(folds(data, FOLDS), learn, data.quality.shape)
    kind = _kinds(x, data)
    part = _dealt(kind)
    centres, nearest = kmeans(x, max(1, min(_CENTRES, len(x) // _PER_CENTRE)))
    found = {
        "held": held,
        "away": _left_out(part, learn, data.quality.shape),
        "near": held_out_closeness(x, centres),
        "far": _closeness_without(x, nearest, len(centres), part),
        "outcome": data.quality,
        "kind": kind,
        "centres": centres,
        **({"x": x} if keep else {}),
    }
    return {f"rehearsal.{name}": np.asarray(value) for name, value in found.items()}


def _left_out(
    part: IntArray, learn: Callable[[Rows, Rows], FloatArray], shape: tuple[int, int]
) -> FloatArray:
    """Speak of each part after learning from the others; NaN where there is nothing else."""
    said = np.full(shape, np.nan)
    for p in np.unique(part):
        rows = part == p
        if not rows.all():
            said[rows] = learn(~rows, rows)
    return said


def _kinds(x: FloatArray, data: RoutingDataset) -> IntArray:
    """Number the categories (n,); where there are no labels, groups of similar queries."""
    if len(data.categories) >= 2:
        return data.labels
    return kmeans(x, min(2 * _AWAY, max(2, len(x) // 20)))[1]


def _dealt(kind: IntArray) -> IntArray:
    """Deal the kinds, the most frequent first, into parts of about equal size (n,)."""
    names, index, count = np.unique(kind, return_inverse=True, return_counts=True)
    size, part = np.zeros(_AWAY), np.zeros(len(names), dtype=np.intp)
    for k in np.argsort(-count, kind="stable"):
        part[k] = size.argmin()
        size[part[k]] += count[k]
    dealt: IntArray = part[index]
    return dealt


def _closeness_without(x: FloatArray, nearest: IntArray, k: int, part: IntArray) -> FloatArray:
    """Return the cosine (n,) to the nearest centre of the queries that are in no row's own part."""
    close = np.full(len(x), -1.0)
    for p in np.unique(part):
        rest = part != p
        centre = np.zeros((k, x.shape[1]))
        np.add.at(centre, nearest[rest], x[rest])
        if (kept := centre.any(axis=1)).any():
            close[~rest] = closeness(x[~rest], centre[kept])
    return close
