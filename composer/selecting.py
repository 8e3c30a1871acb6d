"""From a composition's ``select`` to what changes a router's scores and chooses from them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experts_registry.errors import ArtefactError
from experts_registry.schema import Composition, GuardSpec
from routers.balance import Balance, Usage
from routers.base import Router
from routers.building import build_policy
from routers.guard import Guard
from routers.neighbours import Neighbours
from routers.policies import Policy
from routers.selection import Top1
from routers.temperature import fit_temperature_of_best
from routers.transforms import ScoreTransform

__all__ = ["Selecting", "selecting"]

logger = logging.getLogger(__name__)

_HALF_LIFE = 1000  # decisions after which one counts half for the balance


@dataclass(frozen=True, kw_only=True)
class Selecting:
    """What stands between a router's scores and the experts that are asked.

    Args:
        transforms: change the scores, in this order.
        policy: chooses; None takes the best.
        temperature: what the policy divides scores by.
        usage: whom this composition asked so far.
    """

    transforms: tuple[ScoreTransform, ...]
    policy: Policy | None
    temperature: float
    usage: Usage


def selecting(router: Router, composition: Composition, experts: Sequence[str]) -> Selecting:
    """Build it for a router and those experts of the composition that are enabled.

    What is learned comes from the router's rehearsal, as far as it is about these.

    Raises:
        PluginError: there is no such policy.
        OptionError: the policy has no such setting.
        ArtefactError: a setting needs what the router was not trained with.
    """
    select, usage = composition.select, Usage(_HALF_LIFE)
    policy = build_policy(select.policy, select.model_extra or {})
    weight = router.cost_weight if select.cost_weight is None else select.cost_weight
    transforms: list[ScoreTransform] = []
    if select.neighbours is not None:
        transforms.append(_neighbours(router, select.neighbours, weight))
    if select.balance:
        transforms.append(Balance(weight=select.balance, usage=usage))
    if composition.baseline is not None and isinstance(select.guard, GuardSpec):
        transforms.append(_guard(router, experts, composition.baseline, select.guard, weight))
    is_plain = isinstance(policy, Top1)
    return Selecting(
        transforms=tuple(transforms),
        policy=None if is_plain else policy,
        temperature=1.0 if is_plain else _temperature(router, experts, select.temperature, weight),
        usage=usage,
    )


def _guard(
    router: Router, experts: Sequence[str], baseline: str, spec: GuardSpec, cost_weight: float
) -> Guard:
    """Return the guard; one that never leaves the baseline where nothing was rehearsed."""
    if "rehearsal.held" in router.state_ and baseline in router.experts_:
        return Guard.fit(
            router.state_,
            router.experts_,
            baseline,
            confidence=spec.confidence,
            tolerance=spec.tolerance,
            premium=spec.premium,
            cost_weight=cost_weight,
            among=experts,
        )
    why = (
        "its router has not rehearsed"
        if baseline in router.experts_
        else "its router was trained without outcomes of it"
    )
    logger.warning("baseline %s is always asked: %s; train it again", baseline, why)
    return Guard.never(baseline)


def _neighbours(router: Router, own: float, cost_weight: float) -> Neighbours:
    if "rehearsal.x" not in router.state_:
        raise ArtefactError(
            "neighbours: the router was saved without its training queries; "
            "train it again with 'expert-composer train --keep-queries'"
        )
    return Neighbours.fit(
        router.state_["rehearsal.x"],
        router.state_["rehearsal.outcome"],
        experts=router.experts_,
        own=own,
        cost=np.broadcast_to(router.state_["prior.cost"], router.state_["rehearsal.outcome"].shape),
        cost_weight=cost_weight,
    )


def _temperature(
    router: Router, experts: Sequence[str], given: float | None, cost_weight: float
) -> float:
    if given is not None:
        return given
    if "rehearsal.held" not in router.state_:
        return 1.0
    cost, scale = router.state_["prior.cost"], float(router.state_["prior.scale"][0])
    tilt = cost_weight * np.nan_to_num(cost, nan=scale) / scale
    held, outcome = router.state_["rehearsal.held"] - tilt, router.state_["rehearsal.outcome"]
    column = [i for i, name in enumerate(router.experts_) if name in experts]
    return fit_temperature_of_best(held[:, column], outcome[:, column])
