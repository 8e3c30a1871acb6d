"""Quality over cost of many methods on the same queries, and the area under each hull.

AIQ (RouterBench, Hu et al., https://arxiv.org/abs/2403.12031): the points that a method's knob
reaches -> their least non-decreasing concave hull -> its area over the costs between the cheapest
and the dearest expert, divided by their distance. The hull starts at the cheapest expert's point
and every method may be mixed with that expert; to the right it goes on flat. Means are over
categories, each counting the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from composer.metrics import hull_area
from composer.statistics import macro_weights, resamples_of
from experts_registry.types import FloatArray
from peers.method import IntArray
from routers.data import RoutingDataset

__all__ = ["Curve", "follow", "means", "oracle", "random_choice", "split_areas", "table_draws"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """What a method gives at each setting of its knob, the first without weight on cost.

    Args:
        quality: (settings, n).
        cost: (settings, n).
    """

    quality: FloatArray
    cost: FloatArray


def follow(choices: IntArray, test: RoutingDataset) -> Curve:
    """Follow choices (settings, n)."""
    rest = np.unique(choices[1:], axis=0)
    choices = np.vstack([choices[:1], rest])
    rows = np.arange(len(test))
    return Curve(quality=test.quality[rows, choices], cost=test.cost[rows, choices])


def random_choice(test: RoutingDataset) -> Curve:
    """Return what any expert gives on average."""
    return Curve(quality=test.quality.mean(axis=1)[None], cost=test.cost.mean(axis=1)[None])


def oracle(test: RoutingDataset, settings: int = 61) -> Curve:
    """Know every outcome: the bound, inflated by lucky guesses."""
    worth = 1 / max(float(test.cost.mean(axis=0).max()), 1e-300)
    weights = worth * np.concatenate([[1e-9], np.geomspace(1e-3, 1e3, settings - 1)])
    return follow(np.stack([(test.quality - w * test.cost).argmax(axis=1) for w in weights]), test)


def table_draws(data: RoutingDataset, resamples: int, seed: int) -> FloatArray:
    """Return how often each query of a table is drawn within its category (1 + resamples, n).

    The first row is no resample: every query once.
    """
    _, label, count = np.unique(data.labels, return_inverse=True, return_counts=True)
    size = count[label] * len(count)
    drawn = np.vstack([w * size for w in resamples_of(data.labels, resamples, seed)])
    return np.vstack([np.ones(len(data)), drawn]).astype(np.float32)


def split_areas(
    curves: Mapping[str, Curve], test: RoutingDataset, draws: FloatArray
) -> dict[str, FloatArray]:
    """Return each method's AIQ for each draw (1 + resamples,); draws (1 + resamples, n of test)."""
    weight = _renormalised(draws, test)
    quality, cost = weight @ test.quality, weight @ test.cost  # (b, m)
    cheap, dear = (int(f(test.cost.T @ macro_weights(test.labels))) for f in (np.argmin, np.argmax))
    low, high = cost[:, cheap], cost[:, dear]
    start = (low[:, None], quality[:, [cheap]])
    found = {}
    for name, curve in curves.items():
        points = np.hstack([start[0], weight @ curve.cost.T])
        heights = np.hstack([start[1], weight @ curve.quality.T])
        found[name] = hull_area(points, heights, low, np.maximum(high, low * (1 + 1e-9) + 1e-300))
    return found


def means(curves: Mapping[str, Curve], test: RoutingDataset) -> dict[str, tuple[float, float]]:
    """Return each method's mean quality and cost where cost has no weight."""
    weight = macro_weights(test.labels)
    return {
        name: (float(curve.quality[0] @ weight), float(curve.cost[0] @ weight))
        for name, curve in curves.items()
    }


def _renormalised(draws: FloatArray, test: RoutingDataset) -> FloatArray:
    """Return weights (b, n) in which every category has the same sum, together 1."""
    weight = np.array(draws, dtype=np.float64)
    labels: Sequence[int] = np.unique(test.labels).tolist()
    for c in labels:
        rows = np.flatnonzero(test.labels == c)
        total = weight[:, rows].sum(axis=1, keepdims=True)
        # A category of which nothing was drawn counts as it is.
        part = np.where(total > 0, weight[:, rows], 1.0)
        weight[:, rows] = part / part.sum(axis=1, keepdims=True) / len(labels)
    return weight
