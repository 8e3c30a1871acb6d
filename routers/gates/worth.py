"""Couple the choice of the expert with that of its passages: one argmax over all arms."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experts_registry.types import FloatArray
from routers.arms import RetrievalDecision
from routers.transforms import Context

__all__ = ["RetrievalWorth", "worth"]


def worth(decision: RetrievalDecision) -> float:
    """Return what retrieving adds to an expert's utility: gain less price, or 0 without it."""
    if not decision.is_retrieving or not decision.arms:
        return 0.0
    best = decision.arms[0]
    alone = next((rated for rated in decision.arms if rated.arm.store is None), best)
    return max(0.0, best.quality - best.cost - alone.quality)


@dataclass(frozen=True)
class RetrievalWorth:
    """Add to each expert's utility what retrieving is worth to it; a score transform.

    Routers predict experts without passages, so utility_e + max(0, gain_e - price_e) is the
    utility of its better arm.

    Args:
        gains: by expert; one that is not named gains nothing.
    """

    gains: Mapping[str, float]

    def __call__(self, scores: FloatArray, context: Context) -> FloatArray:
        """Return scores (n, m) with the gains added; -inf stays."""
        names = context.prediction.experts
        better: FloatArray = scores + np.array([self.gains.get(name, 0.0) for name in names])
        return better

    def note(self, before: FloatArray, after: FloatArray, context: Context) -> str | None:
        """Say whom passages brought to the front."""
        first, now = int(before.argmax()), int(after.argmax())
        if first == now:
            return None
        name = context.prediction.experts[now]
        return f"passages put {name!r} first (+{self.gains[name]:.2f})"
