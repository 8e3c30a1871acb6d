"""Quality against cost of several policies on the same queries, with paired intervals of AIQ.

All figures are means over categories. The range of costs is that from the cheapest expert's mean
to the dearest's, on the evaluated queries; in a resample, on the resampled ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from composer.contenders import Contender
from composer.metrics import (
    apgr,
    cost_save,
    cpt,
    hull,
    hull_area,
    hypervolume,
    on_front,
    pareto_distance,
)
from composer.report import Tradeoff
from composer.statistics import bootstrap, estimate, macro_weights
from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = ["Tradeoffs", "aiq", "tradeoffs"]

_SAME = 1e-9  # relative difference of costs that is none


@dataclass(frozen=True, kw_only=True)
class Tradeoffs:
    """Every policy's trade-off, and the draws of its AIQ that differences are taken from.

    Args:
        of: policy name -> its trade-off.
        draws: policy name -> AIQ in each resample (resamples,).
    """

    of: Mapping[str, Tradeoff]
    draws: Mapping[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class _Range:
    """The cheapest and the dearest expert, by column, and what they cost and reach."""

    cheapest: int
    dearest: int
    low: float
    high: float
    floor: float  # quality of the cheapest expert


def tradeoffs(
    contenders: Sequence[Contender], test: RoutingDataset, *, resamples: int, seed: int
) -> Tradeoffs:
    """Measure all contenders; nothing where costs are unknown or all the same.

    One contender is ``best single``, whose choice at weight 0 is the strong expert.
    """
    found = _range(test)
    if found is None:
        return Tradeoffs(of={}, draws={})
    points = {c.name: _points(c, test) for c in contenders}
    draws = _aiq_draws(contenders, test, found, resamples, seed)
    single = next(c for c in contenders if c.name == "best single")
    strong = (float(points[single.name][0][0]), float(points[single.name][1][0]))
    front = _front(contenders, points, test, found)
    return Tradeoffs(
        of={
            c.name: _tradeoff(*points[c.name], found, strong, front, draws[c.name])
            for c in contenders
        },
        draws=draws,
    )


def aiq(contender: Contender, test: RoutingDataset) -> float | None:
    """Return the AIQ of one contender, None where costs are unknown or all the same."""
    found = _range(test)
    return None if found is None else _aiq(*_points(contender, test), found)


def _range(test: RoutingDataset) -> _Range | None:
    if np.isnan(test.cost).any():
        return None
    weight = macro_weights(test.labels)
    cost = weight @ test.cost
    quality = weight @ test.quality
    cheapest = int(np.lexsort((-quality, cost))[0])
    dearest = int(cost.argmax())
    if cost[dearest] <= cost[cheapest] * (1 + _SAME):
        return None
    return _Range(
        cheapest=cheapest,
        dearest=dearest,
        low=float(cost[cheapest]),
        high=float(cost[dearest]),
        floor=float(quality[cheapest]),
    )


def _points(contender: Contender, test: RoutingDataset) -> tuple[FloatArray, FloatArray]:
    """Return cost and quality over the weights, each (w,)."""
    weight = macro_weights(test.labels)
    return weight @ contender.cost, weight @ contender.quality


def _aiq(cost: FloatArray, quality: FloatArray, found: _Range) -> float:
    area = hull_area(
        np.append(found.low, cost)[None],
        np.append(found.floor, quality)[None],
        np.array([found.low]),
        np.array([found.high]),
    )
    return float(area[0])


def _aiq_draws(
    contenders: Sequence[Contender], test: RoutingDataset, found: _Range, resamples: int, seed: int
) -> dict[str, FloatArray]:
    """Return the AIQ of each contender in each resample; the resamples are the same for all."""
    ends = np.cumsum([0, *(c.quality.shape[1] for c in contenders)])
    experts = [found.cheapest, found.dearest]
    columns = [test.quality[:, experts], test.cost[:, experts]]
    columns += [c.quality for c in contenders] + [c.cost for c in contenders]
    means = bootstrap(np.hstack(columns), test.labels, resamples, seed)
    floor, low, high = means[:, :1], means[:, 2], means[:, 3]
    high = np.maximum(high, low * (1 + _SAME) + 1e-300)
    quality, cost = means[:, 4 : 4 + ends[-1]], means[:, 4 + ends[-1] :]
    draws = {}
    for i, contender in enumerate(contenders):
        own = slice(ends[i], ends[i + 1])
        draws[contender.name] = hull_area(
            np.hstack([low[:, None], cost[:, own]]), np.hstack([floor, quality[:, own]]), low, high
        )
    return draws


def _front(
    contenders: Sequence[Contender],
    points: Mapping[str, tuple[FloatArray, FloatArray]],
    test: RoutingDataset,
    found: _Range,
) -> FloatArray:
    """Return the joint frontier (f, 2) of all that can be had: cost scaled to [0, 1], quality."""
    weight = macro_weights(test.labels)
    real = [points[c.name] for c in contenders if c.kind in ("router", "baseline")]
    cost = np.concatenate([weight @ test.cost, *(c for c, _ in real)])
    quality = np.concatenate([weight @ test.quality, *(q for _, q in real)])
    kept = on_front(cost, quality)
    return np.stack([(cost[kept] - found.low) / (found.high - found.low), quality[kept]], axis=1)


def _tradeoff(
    cost: FloatArray,
    quality: FloatArray,
    found: _Range,
    strong: tuple[float, float],
    front: FloatArray,
    draws: FloatArray,
) -> Tradeoff:
    weak = (found.low, found.floor)
    corners = hull(
        np.append(found.low, cost), np.append(found.floor, quality), low=found.low, high=found.high
    )
    scaled = np.stack([(cost - found.low) / (found.high - found.low), quality], axis=1)
    missed = np.array([pareto_distance(point[None], front) for point in scaled])
    return Tradeoff(
        hull=corners,
        aiq=estimate(_aiq(cost, quality, found), draws),
        apgr=apgr(corners, weak, strong),
        cpt50=cpt(corners, weak, strong, 0.5),
        cpt80=cpt(corners, weak, strong, 0.8),
        perf_gain=float(quality.max() / strong[1] - 1) if strong[1] > 0 else 0.0,
        cost_save=cost_save(cost, quality, strong),
        hypervolume=hypervolume(cost, quality, found.low, found.high),
        pareto_ratio=float((missed < 1e-9).mean()),
        pareto_distance=float(missed.mean()),
    )
