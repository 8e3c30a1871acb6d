"""How good routers are on held-out queries, and whether that is more than luck.

Every policy is followed on the same queries; differences are bootstrapped in pairs within each
category, and every category counts the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from composer.contenders import (
    Contender,
    baselines,
    bounds,
    control,
    follow,
    pinned,
)
from composer.health import is_collapsed, usage_entropy
from composer.judging import compare, judge_router
from composer.report import CurvePoint, Point, PolicyResult, Report
from composer.statistics import bootstrap, interval, macro_weights, paired_interval, verdict
from composer.tradeoff import Tradeoffs, tradeoffs
from experts_registry.errors import DataError, OptionError, unknown_name
from experts_registry.types import FloatArray
from routers.base import Router
from routers.baselines import worth
from routers.data import RoutingDataset
from routers.splits import find_leaks
from routers.transforms import ScoreTransform

__all__ = ["Advance", "Report", "complete_cells", "evaluate", "gap_closed"]

Advance = Callable[[str], None]
_AREA_RESAMPLES = 1000  # of AIQ, which needs a hull each


def evaluate(
    router: Router | Mapping[str, Router],
    train: RoutingDataset,
    test: RoutingDataset,
    *,
    cost_weight: float | None = None,
    baseline: str | None = None,
    transforms: Mapping[str, Sequence[ScoreTransform]] | None = None,
    controls: bool = True,
    resamples: int = 10_000,
    seed: int = 0,
    advance: Advance = lambda what: None,
) -> Report:
    """Compare fitted routers with the baselines on held-out outcomes.

    Baselines are chosen on ``train``. Queries that lack an outcome of some expert are left out.

    Args:
        router: fitted on ``train``; several by the name that the report gives them.
        train: outcomes that everything was learned from.
        test: outcomes that nothing was learned from.
        cost_weight: replaces the routers' own.
        baseline: the pinned expert that a router must never be significantly below.
        transforms: router name -> what changes its scores, for example its guard.
        controls: also fit every router on shuffled outcomes, to see that it gains nothing there.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        advance: called with what was done, once for each router.

    Raises:
        DataError: no test query has an outcome of every expert.
        UnknownNameError: ``baseline`` is not one of the experts.
    """
    routers = {"router": router} if isinstance(router, Router) else dict(router)
    if not routers:
        raise OptionError("router: there is none to evaluate; name at least one")
    train, complete = complete_cells(train, test)
    if baseline is not None and baseline not in complete.experts:
        raise unknown_name("baseline", baseline, complete.experts)
    z = {name: each.embed(complete.queries) for name, each in routers.items()}
    contenders = [
        follow(
            name,
            each,
            z[name],
            complete,
            cost_weight=cost_weight,
            transforms=(transforms or {}).get(name, ()),
        )
        for name, each in routers.items()
    ]
    contenders += baselines(train, complete)
    if baseline is not None:
        contenders.append(pinned(complete, baseline))
    once = {id(each): name for name, each in reversed(routers.items())}  # also behind its guard
    for name, each in routers.items():
        if once[id(each)] != name:
            continue
        if controls:
            label = "shuffled control" if len(once) == 1 else f"shuffled {name}"
            z_train = each.embed(train.queries)
            contenders.append(control(label, each, z_train, train, z[name], complete, seed=seed))
        advance(name)
    contenders += bounds(complete)
    report = _report(
        routers, contenders, z, train, complete, baseline=baseline, resamples=resamples, seed=seed
    )
    return replace(report, skipped=len(test) - len(complete), test_digest=test.digest)


def complete_cells(
    train: RoutingDataset, test: RoutingDataset
) -> tuple[RoutingDataset, RoutingDataset]:
    """Return both tables over the experts they share, test rows without missing cells.

    Raises:
        DataError: nothing is left.
    """
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


def gap_closed(quality: float, single: float, oracle: float) -> float | None:
    """Return the share of the way from best single to oracle; None where these are equal."""
    return (quality - single) / (oracle - single) if oracle - single > 1e-12 else None


def _report(
    routers: Mapping[str, Router],
    contenders: Sequence[Contender],
    z: Mapping[str, FloatArray],
    train: RoutingDataset,
    test: RoutingDataset,
    *,
    baseline: str | None,
    resamples: int,
    seed: int,
) -> Report:
    draws = bootstrap(
        np.stack([c.policy.quality for c in contenders], axis=1), test.labels, resamples, seed
    )
    means = {c.name: draws[:, i] for i, c in enumerate(contenders)}
    costs = tradeoffs(contenders, test, resamples=min(resamples, _AREA_RESAMPLES), seed=seed)
    policies = _policies(contenders, test, means, costs, baseline)
    judged = []
    for contender in contenders[: len(routers)]:
        others = [c for c in contenders if c.name != contender.name]
        result = judge_router(
            contender, routers[contender.name], z[contender.name], train, test,
            comparisons=compare(contender, others, means, costs, test), baseline=baseline,
        )  # fmt: skip
        judged.append(result)
    return Report(
        experts=test.experts,
        cost_unit=test.cost_unit,
        queries=len(test),
        skipped=0,
        policies=policies,
        routers=tuple(
            replace(each, points=_router_points(policy.curve) + each.points)
            for each, policy in zip(judged, policies, strict=False)
        ),
        experts_at=_expert_points(test),
        leaks=tuple(test.ids[i.test] for i in find_leaks(train.queries, test.queries)),
        resamples=resamples,
        seed=seed,
        train_digest=train.digest,
        test_digest=test.digest,
        baseline=baseline,
        created=datetime.now(UTC).date().isoformat(),
    )


def _policies(
    contenders: Sequence[Contender],
    test: RoutingDataset,
    means: Mapping[str, FloatArray],
    costs: Tradeoffs,
    baseline: str | None,
) -> tuple[PolicyResult, ...]:
    reach = {c.name: _mean(c.policy.quality, test) for c in contenders}
    single, oracle = reach["best single"], reach["oracle"]
    results = []
    for contender in contenders:
        name, chosen = contender.name, contender.policy.choice
        entropy = None if chosen is None else usage_entropy(chosen, len(test.experts))
        results.append(
            PolicyResult(
                name=name,
                kind=contender.kind,
                quality=reach[name],
                plain_quality=float(contender.policy.quality.mean()),
                cost=_cost(contender.policy.cost, test),
                interval=interval(means[name]),
                gap_closed=gap_closed(reach[name], single, oracle),
                regret=oracle - reach[name],
                entropy=entropy,
                effective_experts=None if entropy is None else float(np.exp(entropy)),
                collapsed=None if chosen is None else is_collapsed(chosen, len(test.experts)),
                curve=_curve(contender, test, baseline),
                tradeoff=costs.of.get(name),
            )
        )
    return tuple(results)


def _mean(values: FloatArray, test: RoutingDataset) -> float:
    return float(macro_weights(test.labels) @ values)


def _cost(cost: FloatArray, test: RoutingDataset) -> float | None:
    """Return the mean over categories, as of quality: both are of the same mix of queries."""
    return None if np.isnan(cost).any() else _mean(cost, test)


def _curve(
    contender: Contender, test: RoutingDataset, baseline: str | None
) -> tuple[CurvePoint, ...]:
    weight, m = macro_weights(test.labels), len(test.experts)
    points = []
    for i, at in enumerate(contender.weights):
        quality, cost = contender.quality[:, i], contender.cost[:, i]
        best = worth(test, at).max(axis=1)
        share: tuple[float, ...] = ()
        reached = quality
        if contender.choice is not None:
            share = tuple(np.bincount(contender.choice[:, i], weights=weight, minlength=m).tolist())
            reached = worth(test, at)[np.arange(len(test)), contender.choice[:, i]]
        points.append(
            CurvePoint(
                weight=at,
                cost=_cost(cost, test),
                quality=float(weight @ quality),
                regret=float(weight @ (best - reached)),
                share=share,
                below_baseline=_is_below(quality, test, baseline),
            )
        )
    return tuple(points)


def _is_below(quality: FloatArray, test: RoutingDataset, baseline: str | None) -> bool | None:
    """Say whether it is significantly below the pinned expert."""
    if baseline is None:
        return None
    difference = quality - test.quality[:, test.experts.index(baseline)]
    found = paired_interval(difference, test.labels)
    return verdict(found, len(test), int(np.count_nonzero(difference))) == "worse"


def _expert_points(test: RoutingDataset) -> tuple[Point, ...]:
    return tuple(
        Point(
            kind="expert",
            label=name,
            cost=_cost(test.cost[:, i], test),
            quality=_mean(test.quality[:, i], test),
        )
        for i, name in enumerate(test.experts)
    )


def _router_points(curve: Sequence[CurvePoint]) -> tuple[Point, ...]:
    return tuple(
        Point(
            kind="router",
            label=f"cost weight {point.weight:g}",
            cost=point.cost,
            quality=point.quality,
        )
        for point in curve
    )
