"""What a selection policy is: the scores of one query become experts in order, with weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import BudgetError, OptionError, PromptError, nearest
from experts_registry.types import FloatArray

__all__ = ["ABSTAIN", "NOBODY", "ROUNDING", "Ballot", "Policy", "Selection", "softmax"]

ABSTAIN = "abstain"
ROUNDING = 1e-9  # sums of shares and of costs are compared up to this


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Whom to ask.

    Args:
        chosen: indices of the experts, best first; empty where the selection abstains.
        weights: one per chosen expert, at least 0, in sum 1 (but see `TopP`).
        nulls: slots that went to nobody; they cost nothing.
        fallback: what stood in where only nulls were picked: the name of the expert that is asked
            instead, or ``abstain``; otherwise None.
    """

    chosen: tuple[int, ...]
    weights: tuple[float, ...]
    nulls: int = 0
    fallback: str | None = None

    @property
    def told(self) -> str | None:
        """What people should know of it, besides the experts."""
        if self.fallback is not None:
            return f"nobody is expected to do well enough, {self.fallback} stands in"
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Ballot:
    """What a policy chooses from.

    Args:
        experts: (m) names, in registry order.
        logits: (m,) scores over temperature, the highest at 0; -inf where not to be asked.
        order: who may be asked, best first, ties in registry order; at least one.
        best: the highest score.
        temperature: what differences of scores were divided by.
        cost: (m,) expected.
        budget: most that the chosen may cost together.
    """

    experts: Sequence[str]
    logits: FloatArray
    order: Sequence[int]
    best: float
    temperature: float
    cost: FloatArray
    budget: float

    def index(self, name: str) -> int:
        """Return the position of an expert.

        Raises:
            OptionError: it is not among the candidates.
        """
        if name not in self.experts:
            known = ", ".join(self.experts)
            raise OptionError(
                f"policy: expert {name!r} is not one of {known}{nearest(name, self.experts)}"
            )
        return list(self.experts).index(name)

    def with_nulls(self, order: Sequence[int], nulls: int, level: float) -> FloatArray:
        """Return the logits of experts and, after them, of nulls that score ``level``."""
        null = (level - self.best) / self.temperature
        return np.append(self.logits[list(order)], np.full(nulls, null))

    def affordable(self, order: Sequence[int]) -> list[int]:
        """Return the first of these experts, up to where their summed cost exceeds the budget."""
        limit = self.budget * (1 + ROUNDING)
        spent = accumulate(float(self.cost[i]) for i in order)
        return [i for i, total in zip(order, spent, strict=True) if total <= limit]

    def select(
        self, order: Sequence[int], *, nulls: int = 0, fallback: str | None = None
    ) -> Selection:
        """Choose these experts, weighted by their shares among themselves."""
        weights = softmax(self.logits[list(order)])
        return Selection(
            chosen=tuple(order), weights=tuple(weights.tolist()), nulls=nulls, fallback=fallback
        )

    def stand_in(self, name: str, nulls: int) -> Selection:
        """Choose, where only nulls were picked, this expert, or the best if it may not be asked."""
        wanted = self.index(name)
        expert = wanted if wanted in self.order else self.order[0]
        return self.select([expert], nulls=nulls, fallback=self.experts[expert])


NOBODY = Selection(chosen=(), weights=())


class Policy(ABC):
    """Choose experts by their scores; a subclass is a frozen dataclass and writes `_choose`."""

    @abstractmethod
    def _choose(self, ballot: Ballot) -> Selection:
        """Choose among the experts of ``ballot.order``."""

    def __call__(
        self,
        scores: FloatArray,
        *,
        experts: Sequence[str],
        temperature: float = 1.0,
        cost: FloatArray | None = None,
        budget: float | None = None,
    ) -> Selection:
        """Choose experts for one query.

        Experts are added best first, until the next one would bring the sum of expected costs
        above the budget. One that is above it alone counts as unavailable, so the first always
        fits.

        Args:
            scores: (m,), -inf where an expert may not be asked.
            experts: (m) names; ties are broken by this order.
            temperature: what scores are divided by before they are read as shares.
            cost: (m,) expected; unknown (NaN) counts as the dearest known one, or as nothing.
            budget: most that the chosen may cost together.

        Raises:
            PromptError: no expert may be asked.
            BudgetError: the budget is below the cost of each that may be asked.
            OptionError: the arguments do not fit together.
        """
        scores = np.asarray(scores, dtype=np.float64)
        _check(scores, experts, temperature)
        available = int((scores > -np.inf).sum())
        order = np.argsort(-scores, kind="stable")[:available].tolist()
        if not order:
            raise PromptError("query: no expert may be asked; every score is -inf")
        price: FloatArray = np.zeros(len(scores))
        if budget is not None:
            price = _known(cost, len(scores))
            order = _within(order, experts, price, budget)
        ballot = Ballot(
            experts=experts,
            logits=_logits(scores, order, temperature),
            order=order,
            best=float(scores[order[0]]),
            temperature=temperature,
            cost=price,
            budget=np.inf if budget is None else budget,
        )
        return self._choose(ballot)


def softmax(logits: FloatArray) -> NDArray[np.float64]:
    """Return the shares of logits (m,), of which at least one is above -inf."""
    weight = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = weight / weight.sum()
    return shares


def _check(scores: FloatArray, experts: Sequence[str], temperature: float) -> None:
    if scores.shape != (len(experts),):
        raise OptionError(
            f"scores: shape {scores.shape} does not fit {len(experts)} experts; give one each"
        )
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise OptionError("scores: hold NaN or inf; use -inf where an expert may not be asked")
    if not 0 < temperature < np.inf:
        raise OptionError(f"temperature: {temperature!r} is not a number above 0")


def _known(cost: FloatArray | None, m: int) -> FloatArray:
    """Return costs (m,) without NaN: what is not known may be dear."""
    if cost is None or np.shape(cost) != (m,):
        raise OptionError("budget: needs the expected cost of each expert; give cost (m,) with it")
    unknown = np.isnan(cost)
    dearest = np.max(cost, where=~unknown, initial=0.0)
    return np.where(unknown, dearest, cost)


def _within(
    order: Sequence[int], experts: Sequence[str], cost: FloatArray, budget: float
) -> list[int]:
    """Return those that the budget can pay for alone."""
    fits = (cost <= budget * (1 + ROUNDING)).tolist()
    fitting = [i for i in order if fits[i]]
    if not fitting:
        cheapest = min(order, key=lambda i: cost[i])
        raise BudgetError(
            f"budget: {budget:g} does not pay for any expert; "
            f"the cheapest, {experts[cheapest]!r}, is expected to cost {cost[cheapest]:g}"
        )
    return fitting


def _logits(scores: FloatArray, order: Sequence[int], temperature: float) -> FloatArray:
    logits = np.full(len(scores), -np.inf)
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf
        logits[order] = (scores[order] - scores[order[0]]) / temperature
    return logits
