"""What a router says: predictions for many queries, or the decision for one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from experts_registry.errors import AbstainError, OptionError, PromptError
from experts_registry.types import FloatArray
from routers.arms import RetrievalDecision
from routers.policies import Selection
from routers.prior import PRIOR_ERROR

__all__ = ["Candidate", "Decision", "Prediction", "first", "ranked", "selected"]


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

    def among(self, experts: Sequence[str], prior: FloatArray, cost_weight: float) -> "Prediction":
        """Return the columns of these experts; one that is not here gets the prior (n, 1)."""
        column = {name: i for i, name in enumerate(self.experts)}
        index = np.array([column.get(name, -1) for name in experts], dtype=np.intp)
        is_new = index < 0

        def pick(values: FloatArray, new: float | FloatArray) -> FloatArray:
            # The last column stands in for what is not here, until it is overwritten.
            picked = values[:, index]
            if is_new.any():
                picked[:, is_new] = new
            return picked

        return Prediction(
            experts=tuple(experts),
            quality=pick(self.quality, prior),
            error=pick(self.error, PRIOR_ERROR),
            cost=pick(self.cost, np.nan),
            utility=pick(self.utility, prior - cost_weight),
        )


class Candidate(NamedTuple):
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
        weights: how much each expert counts, where a selection policy says it.
        retrieval: whether passages are retrieved for it; None where that was not asked.
    """

    experts: tuple[str, ...]
    scores: tuple[float, ...]
    reason: str
    candidates: tuple[Candidate, ...] = ()
    router: str = ""
    cost_unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    retrieval: RetrievalDecision | None = None

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


def ranked(
    prediction: Prediction, scores: FloatArray, excluded: Mapping[str, str]
) -> list[Candidate]:
    """Best score (m,) first; ties by lower cost, then by order; excluded experts last."""
    reasons = [excluded.get(name) for name in prediction.experts]
    cost, keys = prediction.cost[0], [prediction.cost[0], -scores]  # NaN comes last
    if excluded:
        scores = np.where(np.isfinite(scores), scores, prediction.utility[0])
        keys = [cost, -scores, np.array([why is not None for why in reasons])]
    order = np.lexsort(keys)
    numbers = np.array([prediction.quality[0], prediction.error[0], cost, scores])
    quality, error, known, score = numbers[:, order].tolist()
    price = [None if c != c else c for c in known]
    by_score = order.tolist()
    names, whys = [prediction.experts[i] for i in by_score], [reasons[i] for i in by_score]
    # By position, for all at once: keywords would take a tenth of the time of a decision.
    return list(map(Candidate, names, quality, error, price, score, whys))


def first(candidates: Sequence[Candidate], k: int) -> list[Candidate]:
    """Return the first ``k`` that may be chosen.

    Raises:
        OptionError: ``k`` is below 1.
        PromptError: there is none.
    """
    if k < 1:
        raise OptionError(f"k: {k} is below 1; use 1 or more")
    chosen = list(islice((c for c in candidates if not c.excluded), k))
    if not chosen:
        listed = "; ".join(f"{c.expert}: {c.excluded}" for c in candidates) or "none is registered"
        raise PromptError(f"query: no expert may be asked ({listed})")
    return chosen


def selected(
    candidates: Sequence[Candidate], experts: Sequence[str], selection: Selection
) -> list[Candidate]:
    """Return the candidates that a policy selected, in its order.

    Raises:
        AbstainError: it would rather ask nobody.
    """
    if not selection.chosen:
        best = candidates[0]
        raise AbstainError(
            f"query: no expert is expected to do well enough ({best.expert}, the best, "
            f"{best.quality:.2f}); lower 'level', or name an expert under 'otherwise'"
        )
    by_name = {c.expert: c for c in candidates}
    return [by_name[experts[i]] for i in selection.chosen]
