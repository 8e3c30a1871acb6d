"""What a router says: predictions for many queries, or the decision for one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["Candidate", "Decision", "Prediction", "ranked"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a router expects, one row per query and one column per expert.

    Args:
        experts: names of the columns.
        quality: (n, m) expected quality, higher is better, usually in [0, 1].
        error: (n, m) standard error of ``quality``.
        cost: (n, m) expected cost in the router's unit; NaN where unknown.
        utility: (n, m) what ranks the experts: quality less the weighted cost.
    """

    experts: tuple[str, ...]
    quality: FloatArray
    error: FloatArray
    cost: FloatArray
    utility: FloatArray


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One expert as a decision saw it; ``excluded`` says why it could not be chosen."""

    expert: str
    quality: float
    error: float
    cost: float | None = None
    utility: float = 0.0
    excluded: str | None = None


@dataclass(frozen=True)
class Decision:
    """Ranked experts, with the numbers that ranked them.

    Args:
        experts: those to ask, best first.
        scores: predicted quality of each.
        reason: one sentence for people.
        candidates: every expert that was considered, best utility first, excluded ones last.
        router: the registered name of the router that decided, or an empty string.
        cost_unit: what the candidates' costs count: ``usd`` a query, ``B params``, ``s``.
        details: what the router knows beyond the numbers: category probabilities, fallback ...
    """

    experts: tuple[str, ...]
    scores: tuple[float, ...]
    reason: str
    candidates: tuple[Candidate, ...] = ()
    router: str = ""
    cost_unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> str:
        """The expert that answers."""
        return self.experts[0]

    @property
    def peers(self) -> tuple[str, ...]:
        """The other experts active with it."""
        return self.experts[1:]

    @property
    def otherwise(self) -> str | None:
        """The expert that would have been asked without the primary."""
        rest = [c.expert for c in self.candidates if not c.excluded and c.expert != self.primary]
        return rest[0] if rest else None


def ranked(prediction: Prediction, excluded: Mapping[str, str]) -> list[Candidate]:
    """Best utility first; ties by lower cost, then by order; excluded experts last."""
    candidates = [
        Candidate(
            expert=name,
            quality=float(prediction.quality[0, i]),
            error=float(prediction.error[0, i]),
            cost=None if np.isnan(prediction.cost[0, i]) else float(prediction.cost[0, i]),
            utility=float(prediction.utility[0, i]),
            excluded=excluded.get(name),
        )
        for i, name in enumerate(prediction.experts)
    ]
    return sorted(
        candidates,
        key=lambda c: (c.excluded is not None, -c.utility, np.inf if c.cost is None else c.cost),
    )
