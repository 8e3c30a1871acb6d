"""Figures of merit on points and predictions; every one can be computed by hand.

Points (cost, quality) are those of one policy over its willingness to pay. Areas are read from its
hull: the least non-decreasing concave curve over its points and a start, the cheapest expert. Two
points of a policy can be mixed by tossing a coin, so every point of the hull can be had.

AIQ: Hu et al., "RouterBench", https://arxiv.org/abs/2403.12031; there the area is divided by the
largest cost and starts at the first point, here all policies have the same range, from the
cheapest expert to the dearest. APGR and CPT: Ong et al., "RouteLLM",
https://arxiv.org/abs/2406.18665, over the share of calls to the strong one of two models; here
over the share of its cost, which is the same for two models and defined for many. PerfGain,
CostSave, ParetoRatio and ParetoDist: "LLMRouterBench", https://arxiv.org/abs/2601.07206.
"""

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = [
    "apgr",
    "brier",
    "cost_save",
    "cpt",
    "hull",
    "hull_area",
    "hypervolume",
    "on_front",
    "pareto_distance",
    "reliability",
]

Corners = tuple[tuple[float, float], ...]
BINS = 15


def hull(cost: FloatArray, quality: FloatArray, *, low: float, high: float) -> Corners:
    """Return the corners (cost, quality) of the hull between two costs.

    Args:
        cost: (k,) one of them is at most ``low``: with it every policy can be mixed.
        quality: (k,).
        low: where the hull starts; a cheaper point counts as one of this cost.
        high: where it ends.
    """
    cost = np.maximum(cost, low)
    x, y = low, float(quality[cost <= low].max())
    corners = [(x, y)]
    while (further := (cost > x) & (quality > y)).any():
        slope = np.where(further, (quality - y) / np.where(further, cost - x, 1), -np.inf)
        best = int(np.argmax(slope))
        if cost[best] > high:
            corners.append((high, y + float(slope[best]) * (high - x)))
            return tuple(corners)
        x, y = float(cost[best]), float(quality[best])
        corners.append((x, y))
    return (*corners, (high, y)) if x < high else tuple(corners)


def hull_area(
    cost: FloatArray, quality: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Return the area under many hulls over their widths (b,): AIQ, a mean quality.

    Args:
        cost: (b, k) points of each; one costs at most ``low``.
        quality: (b, k).
        low: (b,) where each range starts.
        high: (b,) where it ends, above ``low``.
    """
    cost = np.maximum(cost, low[:, None])
    x, area = low.copy(), np.zeros(len(low))
    y = np.where(cost <= low[:, None], quality, -np.inf).max(axis=1)
    rows = np.arange(len(low))
    for _ in range(cost.shape[1]):  # one corner a step, of all hulls at once
        further = (cost > x[:, None]) & (quality > y[:, None]) & (x < high)[:, None]
        if not further.any():
            break
        run = np.where(further, cost - x[:, None], 1)
        slope = np.where(further, (quality - y[:, None]) / run, -np.inf)
        best = slope.argmax(axis=1)
        moves = further.any(axis=1)
        end = np.where(moves, np.minimum(cost[rows, best], high), x)
        rise = np.where(moves, slope[rows, best], 0) * (end - x)
        area += (end - x) * (y + rise / 2)
        x, y = end, y + rise
    result: FloatArray = (area + np.maximum(high - x, 0) * y) / (high - low)
    return result


def _mean_height(corners: Corners, end: float) -> float:
    """Return the mean of a hull from its start to some cost."""
    (low, start), *_ = corners
    cost, quality = np.array(corners).T
    inside = cost < end
    x = np.append(cost[inside], end)
    y = np.append(quality[inside], np.interp(end, cost, quality))
    return float(np.trapezoid(y, x) / (end - low)) if end > low else start


def apgr(corners: Corners, weak: tuple[float, float], strong: tuple[float, float]) -> float | None:
    """Return the mean share of the gap from weak to strong that a hull recovers.

    PGR(t) = (q(t) - q_weak) / (q_strong - q_weak) at cost c_weak + t (c_strong - c_weak), and its
    mean over t in [0, 1]. A random mixture of the two has 0.5.

    Args:
        corners: of a hull that starts at the cost of ``weak``.
        weak: (cost, quality).
        strong: (cost, quality).

    Returns:
        None where strong is not dearer and better than weak.
    """
    if strong[0] <= weak[0] or strong[1] <= weak[1]:
        return None
    return (_mean_height(corners, strong[0]) - weak[1]) / (strong[1] - weak[1])


def cpt(
    corners: Corners, weak: tuple[float, float], strong: tuple[float, float], share: float
) -> float | None:
    """Return the least t in [0, 1] with PGR(t) of at least ``share``; see `apgr`.

    Returns:
        None where it is never reached, or where strong is not dearer and better than weak.
    """
    if strong[0] <= weak[0] or strong[1] <= weak[1]:
        return None
    wanted = weak[1] + share * (strong[1] - weak[1])
    cost, quality = np.array(corners).T
    if quality[-1] < wanted:
        return None
    rising = np.append(True, np.diff(quality) > 0)  # np.interp wants no two of the same quality
    at = float(np.interp(wanted, quality[rising], cost[rising]))
    t = (at - weak[0]) / (strong[0] - weak[0])
    return t if t <= 1 else None


def cost_save(cost: FloatArray, quality: FloatArray, single: tuple[float, float]) -> float | None:
    """Return 1 - c / c_single for the cheapest point (k,) at least as good as one expert.

    Returns:
        None where no point is as good, or where the expert costs nothing.
    """
    as_good = quality >= single[1] - 1e-12
    if not as_good.any() or single[0] <= 0:
        return None
    return float(1 - cost[as_good].min() / single[0])


def hypervolume(cost: FloatArray, quality: FloatArray, low: float, high: float) -> float:
    """Return the area that points (k,) dominate over [low, high] x [0, 1], over its width.

    Unlike the hull, it mixes nothing: a point gives its quality from its cost on.
    """
    order = np.argsort(cost)
    at = np.clip(cost[order], low, high)
    height = np.maximum.accumulate(quality[order])
    return float((np.diff(np.append(at, high)) * height).sum() / (high - low))


def on_front(cost: FloatArray, quality: FloatArray) -> NDArray[np.bool_]:
    """Return which points (k,) no other one beats in one respect without losing in the other."""
    cheaper = cost[None, :] <= cost[:, None]
    better = quality[None, :] >= quality[:, None]
    strictly = (cost[None, :] < cost[:, None]) | (quality[None, :] > quality[:, None])
    return np.asarray(~(cheaper & better & strictly).any(axis=1))


def pareto_distance(points: FloatArray, front: FloatArray) -> float:
    """Return the mean over points (k, 2) of the least deficit to a front (f, 2).

    Only what a point lacks counts, being dearer and being worse (IGD+ of Ishibuchi et al.,
    "Modified Distance Calculation in Generational Distance and Inverted Generational Distance",
    EMO 2015). The columns are cost, scaled to [0, 1], and quality.
    """
    dearer = np.maximum(points[:, None, 0] - front[None, :, 0], 0)
    worse = np.maximum(front[None, :, 1] - points[:, None, 1], 0)
    return float(np.hypot(dearer, worse).min(axis=1).mean())


def brier(predicted: FloatArray, observed: FloatArray) -> float:
    """Return the mean squared difference of predicted and observed quality (k,)."""
    return float(((predicted - observed) ** 2).mean())


def reliability(
    predicted: FloatArray, observed: FloatArray, bins: int = BINS
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean prediction, mean outcome and size of bins of equal mass, each (bins,).

    Equal predictions share a bin, so there may be fewer. The expected calibration error is the
    mean distance of the first two, weighed by the third.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    index = np.searchsorted(edges, predicted, side="left")
    size = np.bincount(index, minlength=len(edges) + 1).astype(np.float64)
    means = [np.bincount(index, weights=v, minlength=len(size)) for v in (predicted, observed)]
    filled = size > 0
    return means[0][filled] / size[filled], means[1][filled] / size[filled], size[filled]
