"""How good a router is on held-out queries, and whether that is more than luck.

Every policy is followed on the same queries; differences are bootstrapped in pairs within each
category, and every category counts the same.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from composer.report import (
    CategoryResult,
    Comparison,
    Interval,
    Point,
    PolicyResult,
    Report,
    Verdict,
)
from experts_registry.errors import DataError
from experts_registry.types import FloatArray
from routers.base import Prediction, Router
from routers.baselines import (
    Policy,
    best_single,
    category_table,
    cheapest_correct_oracle,
    choose,
    oracle,
    prompt_length,
    random_expectation,
)
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.splits import find_leaks

__all__ = ["Report", "best_columns", "evaluate"]

IntArray = NDArray[np.integer[Any]]
COST_WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)
_TIMED = 20
FEWEST = 20  # on fewer queries the bootstrap sees too little to call anything significant


def evaluate(
    router: Router,
    train: RoutingDataset,
    test: RoutingDataset,
    *,
    cost_weight: float | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Report:
    """Compare a fitted router with the baselines on held-out outcomes.

    Baselines are chosen on ``train``. Queries that lack an outcome of some expert are left out.

    Raises:
        DataError: no test query has an outcome of every expert.
    """
    train, complete = _complete(train, test)
    x = router.embed(complete.queries)
    prediction = router.predict_embedded(x, experts=complete.experts, cost_weight=cost_weight)
    choice = best_columns(prediction)
    policies = _policies(train, complete, choose("router", complete, choice))
    means = _bootstrap(policies, complete, resamples, seed)  # (resamples, policies)
    results = tuple(_result(p, complete, means[:, i]) for i, p in enumerate(policies))
    quality = {result.name: result.quality for result in results}
    room = quality["oracle"] - quality["best single"]
    return Report(
        experts=complete.experts,
        cost_unit=complete.cost_unit,
        queries=len(complete),
        skipped=len(test) - len(complete),
        policies=results,
        comparisons=tuple(
            _compare(results[0], results[i], means[:, 0] - means[:, i], len(complete))
            for i in range(1, len(results))
        ),
        categories=_by_category(complete, choice),
        gap_closed=(quality["router"] - quality["best single"]) / room if room > 1e-12 else None,
        fallback_rate=_fallback_rate(router, x),
        decision_ms=_decision_ms(router, complete.queries),
        leaks=tuple(complete.ids[i.test] for i in find_leaks(train.queries, complete.queries)),
        points=(*_expert_points(complete), *_router_points(router, x, complete)),
        resamples=resamples,
        seed=seed,
        lineage=dict(router.lineage_),
        test_digest=test.digest,
    )


def best_columns(prediction: Prediction) -> IntArray:
    """Return the column that `Router.route` would choose for each query, (n,)."""
    tied = prediction.utility >= prediction.utility.max(axis=1, keepdims=True)
    cost = np.nan_to_num(prediction.cost, nan=np.finfo(float).max)
    columns: IntArray = np.argmin(np.where(tied, cost, np.inf), axis=1)
    return columns


def _complete(train: RoutingDataset, test: RoutingDataset) -> tuple[RoutingDataset, RoutingDataset]:
    """Return both tables over the experts they share, test rows without missing cells."""
    tried = np.flatnonzero((~np.isnan(test.quality)).any(axis=0))
    names = [test.experts[i] for i in tried if test.experts[i] in train.experts]
    if not names:
        raise DataError("test: no expert of the training data has an outcome; collect some first")
    shared = test.only(names)
    complete = shared.select(np.flatnonzero((~np.isnan(shared.quality)).all(axis=1)))
    if not len(complete):
        raise DataError(
            f"test: none of {len(test)} queries has an outcome of each of {', '.join(names)}; "
            "collect the missing ones, or leave an expert out"
        )
    return train.only(names), complete


def _policies(train: RoutingDataset, test: RoutingDataset, router: Policy) -> tuple[Policy, ...]:
    baselines = [best_single(train, test)]
    if test.categories:
        baselines.append(category_table(train, test))
    baselines += [prompt_length(train, test), random_expectation(test), oracle(test)]
    if (test.cost > 0).any():
        baselines.append(cheapest_correct_oracle(test))
    return (router, *baselines)


def _bootstrap(
    policies: Sequence[Policy], test: RoutingDataset, resamples: int, seed: int
) -> FloatArray:
    """Resample queries within each category; return macro means (resamples, policies).

    Queries are drawn together for all policies, so differences between columns are paired.
    """
    rng = np.random.default_rng(seed)
    quality = np.stack([policy.quality for policy in policies], axis=1)  # (n, policies)
    labels = np.unique(test.labels)
    means = np.zeros((resamples, len(policies)))
    for c in labels:
        rows = quality[test.labels == c]
        for start in range(0, resamples, 1000):
            size = min(1000, resamples - start)
            drawn = rng.integers(len(rows), size=(size, len(rows)))
            drawn += len(rows) * np.arange(size)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * len(rows)).reshape(size, -1)
            means[start : start + size] += times @ rows / (len(rows) * len(labels))
    return means


def _macro(values: FloatArray, test: RoutingDataset) -> float:
    return float(np.mean([values[test.labels == c].mean() for c in np.unique(test.labels)]))


def _interval(values: FloatArray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def _result(policy: Policy, test: RoutingDataset, means: FloatArray) -> PolicyResult:
    return PolicyResult(
        name=policy.name,
        quality=_macro(policy.quality, test),
        plain_quality=float(policy.quality.mean()),
        cost=_mean_cost(policy.cost, test),
        interval=_interval(means),
    )


def _mean_cost(cost: FloatArray, test: RoutingDataset) -> float | None:
    """Return the mean over categories, as of quality: both are of the same mix of queries."""
    return None if np.isnan(cost).any() else _macro(cost, test)


def _compare(
    router: PolicyResult, baseline: PolicyResult, difference: FloatArray, queries: int
) -> Comparison:
    interval = _interval(difference)
    verdict: Verdict = "not significant"
    if queries >= FEWEST and (interval.low > 0 or interval.high < 0):
        verdict = "better" if interval.low > 0 else "worse"
    return Comparison(
        baseline=baseline.name,
        difference=router.quality - baseline.quality,
        interval=interval,
        verdict=verdict,
    )


def _by_category(test: RoutingDataset, choice: IntArray) -> tuple[CategoryResult, ...]:
    results = []
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
            )
        )
    return tuple(results)


def _fallback_rate(router: Router, x: FloatArray) -> float | None:
    if not isinstance(router, CategoryRouter):
        return None
    return float(router.categorise(x).fallback.mean())


def _decision_ms(router: Router, queries: Sequence[str]) -> float:
    times = []
    for query in queries[:_TIMED]:
        start = time.perf_counter()
        router.route(query)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _expert_points(test: RoutingDataset) -> list[Point]:
    return [
        Point(
            kind="expert",
            label=name,
            cost=_mean_cost(test.cost[:, i], test),
            quality=_macro(test.quality[:, i], test),
        )
        for i, name in enumerate(test.experts)
    ]


def _router_points(router: Router, x: FloatArray, test: RoutingDataset) -> list[Point]:
    """Return the router at several cost weights, and the front of its category maps."""
    points = []
    for weight in COST_WEIGHTS:
        prediction = router.predict_embedded(x, experts=test.experts, cost_weight=weight)
        points.append(_point("router", f"cost weight {weight:g}", test, best_columns(prediction)))
    if not isinstance(router, CategoryRouter) or not set(router.experts_) <= set(test.experts):
        return points
    column = np.array([test.experts.index(name) for name in router.experts_])
    top = router.categorise(x).probabilities.argmax(axis=1)
    for i, mapping in enumerate(router.front()):
        points.append(_point("mapping", f"map {i}", test, column[mapping.choice[top]]))
    return points


def _point(
    kind: Literal["router", "mapping"], label: str, test: RoutingDataset, choice: IntArray
) -> Point:
    policy = choose(label, test, choice)
    quality = _macro(policy.quality, test)
    return Point(kind=kind, label=label, cost=_mean_cost(policy.cost, test), quality=quality)
