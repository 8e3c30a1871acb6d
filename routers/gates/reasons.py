"""Sentences that say why a gate decided as it did."""

from collections.abc import Sequence

from routers.arms import RatedArm
from routers.gates.guard import Verdict

__all__ = ["NOTHING_FOUND", "compared", "no_skill", "unseen"]

NOTHING_FOUND = "nothing was found that is near enough to read"


def compared(arms: Sequence[RatedArm], stage: str) -> str:
    """Say what was weighed: the best arm with passages against none."""
    alone = next(rated for rated in arms if rated.arm.store is None)
    other = next(rated for rated in arms if rated.arm.store is not None)
    gain = other.quality - alone.quality
    sign = "more" if gain - other.cost > 0 else "no more"
    after = ", after a draft" if stage == "draft" else ""
    return (
        f"passages of {other.arm.store!r} are expected to change quality from "
        f"{alone.quality:.2f} to {other.quality:.2f}{after}: {sign} than "
        f"their price {other.cost:.3g}"
    )


def no_skill(arm: RatedArm, verdict: Verdict) -> str:
    """Say that the question does not tell, and what is done instead."""
    what = _policy(arm.arm.store)
    return (
        f"the question does not tell when passages help {arm.arm.expert!r} (the gate is better "
        f"than the better constant with probability {verdict.probability:.2f}, and departs from it "
        f"on {verdict.departs} of {verdict.queries} queries): {what}"
    )


def unseen(what: str, store: str | None, arms: Sequence[RatedArm]) -> str:
    """Say that there are no outcomes, and what others' suggest."""
    alone = next(rated for rated in arms if rated.arm.store is None)
    other = next(rated for rated in arms if rated.arm.store is not None)
    return (
        f"the gate has no outcomes of {what}; for others passages changed quality from "
        f"{alone.quality:.2f} to {other.quality:.2f} on average: {_policy(store)}"
    )


def _policy(store: str | None) -> str:
    return "never retrieve" if store is None else f"always retrieve from {store!r}"
