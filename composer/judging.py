"""What only routers have: comparisons, calibration, health, categories and decision time."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from composer.contenders import Contender
from composer.health import HealthCheck, RoutingLog, check_health
from composer.metrics import brier, reliability
from composer.report import (
    BaselineCheck,
    Calibration,
    CategoryResult,
    Comparison,
    Point,
    ReliabilityBin,
    RouterResult,
    Timing,
)
from composer.statistics import (
    Estimate,
    estimate,
    interval,
    macro_weights,
    mcnemar,
    paired_interval,
    verdict,
)
from composer.tradeoff import Tradeoffs
from experts_registry.types import FloatArray
from routers.base import Router
from routers.baselines import Policy, best_single, category_table
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.encoding import CachedEncoder

__all__ = ["compare", "judge_router"]

_TIMED = 50


def judge_router(
    contender: Contender,
    router: Router,
    z: FloatArray,
    train: RoutingDataset,
    test: RoutingDataset,
    *,
    comparisons: tuple[Comparison, ...],
    baseline: str | None,
) -> RouterResult:
    """Collect what a report says of one router."""
    return RouterResult(
        name=contender.name,
        comparisons=comparisons,
        categories=_by_category(contender, best_single(train, test, cost_weight=0.0), test),
        calibration=_calibration(contender, train, test),
        timing=_timing(router, z, test),
        fallback_rate=_fallback_rate(router, z),
        pinned=_pinned(comparisons, baseline),
        points=_maps(router, z, test),
        health=_health(contender, train, test, baseline),
        lineage=dict(router.lineage_),
    )


def compare(
    router: Contender,
    others: Sequence[Contender],
    means: Mapping[str, FloatArray],
    costs: Tradeoffs,
    test: RoutingDataset,
) -> tuple[Comparison, ...]:
    """Compare a router with every other policy.

    Args:
        router: at the weight it is used with.
        others: likewise.
        means: policy -> mean quality in each resample; the resamples are the same for all.
        costs: of every policy, or empty.
        test: the queries.
    """
    weight, found = macro_weights(test.labels), []
    for other in others:
        drawn = interval(means[router.name] - means[other.name])
        gain = None
        if router.name in costs.of:
            ours, theirs = costs.of[router.name].aiq, costs.of[other.name].aiq
            draws = costs.draws[router.name] - costs.draws[other.name]
            gain = estimate(ours.value - theirs.value, draws)
        found.append(
            Comparison(
                baseline=other.name,
                difference=float(weight @ (router.policy.quality - other.policy.quality)),
                interval=drawn,
                verdict=verdict(drawn, len(test), _deciding(router, other)),
                mcnemar=mcnemar(router.policy.quality, other.policy.quality),
                aiq=gain,
            )
        )
    return tuple(found)


def _deciding(router: Contender, other: Contender) -> int:
    return int((router.policy.quality != other.policy.quality).sum())


def _pinned(comparisons: Sequence[Comparison], baseline: str | None) -> BaselineCheck | None:
    for found in comparisons:
        if baseline is not None and found.baseline == f"pinned {baseline}" and found.mcnemar:
            return BaselineCheck(
                baseline=baseline,
                difference=found.difference,
                interval=found.interval,
                verdict=found.verdict,
                mcnemar=found.mcnemar,
            )
    return None


def _by_category(
    contender: Contender, single: Policy, test: RoutingDataset
) -> tuple[CategoryResult, ...]:
    results, choice = [], contender.policy.choice
    if choice is None:
        return ()
    gain = contender.policy.quality - single.quality
    for c in np.unique(test.labels):
        rows = np.flatnonzero(test.labels == c)
        quality, chosen = test.quality[rows], choice[rows]
        share = np.bincount(chosen, minlength=len(test.experts)) / len(rows)
        results.append(
            CategoryResult(
                category=test.categories[c] if c >= 0 else "",
                queries=len(rows),
                quality=dict(zip(test.experts, quality.mean(axis=0).tolist(), strict=True)),
                chosen=dict(zip(test.experts, share.tolist(), strict=True)),
                router=float(test.quality[rows, chosen].mean()),
                difference=Estimate(
                    float(gain[rows].mean()), paired_interval(gain[rows], test.labels[rows])
                ),
            )
        )
    return tuple(results)


def _calibration(
    contender: Contender, train: RoutingDataset, test: RoutingDataset
) -> Calibration | None:
    if contender.prediction is None or contender.policy.choice is None:
        return None
    predicted = np.clip(contender.prediction.quality, 0, 1)
    known = ~np.isnan(train.quality)
    mean = np.where(known, train.quality, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    rows = np.arange(len(test))
    bins = reliability(predicted.ravel(), test.quality.ravel())
    chosen = reliability(predicted[rows, contender.policy.choice], contender.policy.quality)
    return Calibration(
        brier=brier(predicted, test.quality),
        constant_brier=brier(np.broadcast_to(mean, test.quality.shape), test.quality),
        ece=_ece(*bins),
        chosen_ece=_ece(*chosen),
        bins=tuple(
            ReliabilityBin(predicted=float(p), observed=float(o), count=int(size))
            for p, o, size in zip(*bins, strict=True)
        ),
    )


def _ece(predicted: FloatArray, observed: FloatArray, size: FloatArray) -> float:
    return float((size / size.sum()) @ np.abs(predicted - observed))


def _timing(router: Router, z: FloatArray, test: RoutingDataset) -> Timing:
    """Time single decisions, each of another query, after one that warms up."""
    encoder = router.encoder.encoder if isinstance(router.encoder, CachedEncoder) else None
    whole, routing = [], []
    router.route(test.queries[0])
    for i in range(min(_TIMED, len(test))):
        start = time.perf_counter()
        if encoder is not None:  # what the cache would hide
            encoder.embed([test.queries[i]], role="query")
        router.route(test.queries[i])
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        router.predict_embedded(z[i : i + 1]).utility.argmax()
        routing.append(time.perf_counter() - start)
    p50, p95 = 1000 * np.quantile([whole, routing], [0.5, 0.95], axis=1)
    return Timing(
        p50_ms=float(p50[0]),
        p95_ms=float(p95[0]),
        routing_p50_ms=float(p50[1]),
        routing_p95_ms=float(p95[1]),
    )


def _fallback_rate(router: Router, z: FloatArray) -> float | None:
    if not isinstance(router, CategoryRouter):
        return None
    return float(router.categorise(z).fallback.mean())


def _maps(router: Router, z: FloatArray, test: RoutingDataset) -> tuple[Point, ...]:
    """Return the front of a category router's maps: what it could have chosen by budget."""
    if not isinstance(router, CategoryRouter) or not set(router.experts_) <= set(test.experts):
        return ()
    column = np.array([test.experts.index(name) for name in router.experts_])
    top = router.categorise(z).probabilities.argmax(axis=1)
    weight, rows, points = macro_weights(test.labels), np.arange(len(test)), []
    for i, mapping in enumerate(router.front()):
        choice = column[mapping.choice[top]]
        cost = float(weight @ test.cost[rows, choice])
        points.append(
            Point(
                kind="mapping",
                label=f"map {i}",
                cost=None if np.isnan(cost) else cost,
                quality=float(weight @ test.quality[rows, choice]),
            )
        )
    return tuple(points)


def _health(
    contender: Contender, train: RoutingDataset, test: RoutingDataset, baseline: str | None
) -> tuple[HealthCheck, ...]:
    if contender.policy.choice is None or contender.prediction is None:
        return ()
    table = category_table(train, test).choice
    own = {} if table is None else dict(zip(test.category, table.tolist(), strict=True))
    return check_health(
        RoutingLog(
            experts=test.experts,
            chosen=contender.policy.choice,
            domains=test.category,
            scores=contender.prediction.quality,
            quality=test.quality,
            shared=baseline,
            own={name: test.experts[column] for name, column in own.items() if name},
        )
    )
