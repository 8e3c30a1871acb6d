"""Who competes in an evaluation: routers, baselines, controls and bounds, over the cost weight.

Every one is followed on the same queries at the same willingness to pay. Baselines are chosen on
train. The control is the router itself, fitted on outcomes that were dealt to the wrong queries:
what it gains over the best single expert, it does not gain from reading queries.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from composer.report import PolicyKind
from experts_registry.types import FloatArray
from routers.base import Prediction, Router
from routers.baselines import (
    Policy,
    best_single,
    category_oracle,
    category_table,
    cheapest_correct_oracle,
    choose,
    forecast,
    oracle,
    prompt_length,
    random_expectation,
)
from routers.data import RoutingDataset
from routers.transforms import Context, ScoreTransform, transform
from routers.words import predict_from_words

__all__ = [
    "COST_WEIGHTS",
    "Contender",
    "baselines",
    "best_columns",
    "bounds",
    "control",
    "follow",
    "pinned",
]

IntArray = NDArray[np.integer[Any]]
# Fine enough for experts a hundred times cheaper than the dearest to be told apart.
COST_WEIGHTS = (0.0, *(float(f"{w:.3g}") for w in np.geomspace(0.003, 100, 24)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """One policy on n queries at w willingnesses to pay.

    Args:
        name: shown to people.
        kind: what it is there for.
        policy: at the weight it is used with.
        weights: (w).
        quality: (n, w) reached.
        cost: (n, w) paid; NaN where unknown.
        choice: (n, w) columns chosen, or None where it is an expectation.
        prediction: what a router predicted; None for all others.
    """

    name: str
    kind: PolicyKind
    policy: Policy
    weights: tuple[float, ...]
    quality: FloatArray
    cost: FloatArray
    choice: IntArray | None = None
    prediction: Prediction | None = None


def best_columns(prediction: Prediction, scores: FloatArray | None = None) -> IntArray:
    """Return the column that `Router.route` would choose for each query, (n,)."""
    utility = prediction.utility if scores is None else scores
    tied = utility >= utility.max(axis=1, keepdims=True)
    cost = np.where(np.isnan(prediction.cost), np.finfo(np.float32).max, prediction.cost)
    columns: IntArray = np.argmin(np.where(tied, cost, np.inf), axis=1)
    return columns


def follow(
    name: str,
    router: Router,
    z: FloatArray,
    test: RoutingDataset,
    *,
    cost_weight: float | None = None,
    transforms: Sequence[ScoreTransform] = (),
    kind: PolicyKind = "router",
) -> Contender:
    """Follow a fitted router over the cost weights, and at the weight it is used with.

    Args:
        name: shown to people.
        router: fitted.
        z: (n, d) what its `embed` returned for the test queries.
        test: outcomes without missing cells.
        cost_weight: replaces the router's own.
        transforms: change its scores, for example a guard.
        kind: what it is there for.
    """
    own = router.cost_weight if cost_weight is None else cost_weight
    chosen = [
        _chosen(router, prediction, z, transforms)
        for prediction in _predictions(router, z, test.experts, (own, *COST_WEIGHTS))
    ]
    policies = [choose(name, test, column) for column in chosen]
    prediction = router.predict_embedded(z, experts=test.experts, cost_weight=own)
    return replace(
        _over_weights(name, kind, policies[1:]), policy=policies[0], prediction=prediction
    )


def baselines(train: RoutingDataset, test: RoutingDataset) -> Iterator[Contender]:
    """Yield what every router has to beat; all that is chosen is chosen on train."""
    yield _swept("best single", "baseline", lambda w: best_single(train, test, cost_weight=w))
    if test.categories:
        yield _swept(
            "category table", "baseline", lambda w: category_table(train, test, cost_weight=w)
        )
    yield _swept("prompt length", "baseline", lambda w: prompt_length(train, test, cost_weight=w))
    words = predict_from_words(train, test.queries)
    yield _swept("word ridge", "baseline", lambda w: forecast("word ridge", train, test, words, w))
    policy = random_expectation(test)
    yield replace(_over_weights("random", "baseline", [policy]), weights=(0.0,))


def pinned(test: RoutingDataset, expert: str) -> Contender:
    """Return the expert that a composition names as its baseline, whatever it costs."""
    column = np.full(len(test), test.experts.index(expert))
    policy = choose(f"pinned {expert}", test, column)
    return replace(_over_weights(policy.name, "baseline", [policy]), weights=(0.0,))


def bounds(test: RoutingDataset) -> Iterator[Contender]:
    """Yield what no router can reach, because it is told the outcomes."""
    if test.categories:
        yield _swept("category oracle", "bound", lambda w: category_oracle(test, cost_weight=w))
    yield _swept("oracle", "bound", lambda w: oracle(test, cost_weight=w))
    if (test.cost > 0).any():
        yield _swept(
            "cheapest correct oracle",
            "bound",
            lambda w: cheapest_correct_oracle(test, cost_weight=w),
        )


def control(
    name: str,
    router: Router,
    z_train: FloatArray,
    train: RoutingDataset,
    z_test: FloatArray,
    test: RoutingDataset,
    *,
    seed: int = 0,
) -> Contender:
    """Fit the same router on outcomes dealt to the wrong queries, and follow it."""
    order = np.random.default_rng(seed).permutation(len(train))
    shuffled = replace(train, quality=train.quality[order], cost=train.cost[order])
    fitted = replace(router).fit_embedded(z_train, shuffled)
    return follow(name, fitted, z_test, test, kind="control")


def _swept(name: str, kind: PolicyKind, at: Callable[[float], Policy]) -> Contender:
    return _over_weights(name, kind, [at(weight) for weight in COST_WEIGHTS])


def _over_weights(name: str, kind: PolicyKind, policies: Sequence[Policy]) -> Contender:
    choices = [policy.choice for policy in policies if policy.choice is not None]
    return Contender(
        name=name,
        kind=kind,
        policy=policies[0],
        weights=COST_WEIGHTS,
        quality=np.stack([policy.quality for policy in policies], axis=1),
        cost=np.stack([policy.cost for policy in policies], axis=1),
        choice=np.stack(choices, axis=1) if choices else None,
    )


def _chosen(
    router: Router, prediction: Prediction, z: FloatArray, transforms: Sequence[ScoreTransform]
) -> IntArray:
    if not transforms:
        return best_columns(prediction)
    available = np.ones(prediction.utility.shape, dtype=bool)
    context = Context(x=router._read(z), prediction=prediction, available=available)
    return best_columns(prediction, transform(prediction.utility, context, transforms)[0])


def _predictions(
    router: Router, z: FloatArray, experts: Sequence[str], weights: Sequence[float]
) -> Iterator[Prediction]:
    """Yield one prediction per cost weight.

    Utility is linear in the weight for every router of ours, so that two predictions give all of
    them; a third one checks that.
    """
    at = {w: router.predict_embedded(z, experts=experts, cost_weight=w) for w in (0.0, 1.0, 2.0)}
    step = at[1.0].utility - at[0.0].utility
    is_linear = np.allclose(at[2.0].utility - at[1.0].utility, step, rtol=1e-4, atol=1e-5)
    for weight in weights:
        if is_linear and weight not in at:
            yield replace(at[0.0], utility=at[0.0].utility + weight * step)
        else:
            yield at.get(weight) or router.predict_embedded(z, experts=experts, cost_weight=weight)
