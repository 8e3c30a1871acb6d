"""Leave the pinned baseline only on evidence that this costs no quality.

The evidence is paired: on training queries that the router had not seen (`routers.rehearsal`), the
quality of the expert it would have chosen less that of the baseline on the same query. A query
leaves the baseline if all of this holds:

1. Its predicted gain is at least g. Of five candidates for g the one that gains most is taken
   among those whose mean paired gain, with one more query on which everything was lost, has a
   lower confidence bound above what is asked for: minus ``tolerance`` for experts that cost no
   more than the baseline, ``premium`` for dearer ones. The five tests share the error (Bonferroni).
2. It is familiar: its cosine to the nearest centre of the training queries is above a floor. Floor
   and g are raised together, at the least cost in gain, until no category that was left out of
   the training as a whole would have been harmed.
3. The expert has outcomes; a newcomer has none to compare.

Without such a g or such a floor the baseline is asked for everything.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError, UnknownNameError, nearest
from experts_registry.types import FloatArray
from routers.transforms import Context

__all__ = ["Evidence", "Guard"]

BoolArray = NDArray[np.bool_]
_LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9)  # quantiles of the predicted gain, candidates for g
_FLOORS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # quantiles of familiar closeness
_FEWEST = 20  # queries that leave the baseline, below which nothing is evidence
# A left-out category counts as harmed below so many standard errors: 0 at 95 %, fewer the surer one
# wants to be. Where each category in turn stood for the next unknown one, that kept the share of
# categories significantly worse than the baseline at about the doubt (benchmarks/guard.py).
_HARM, _SURE = 15.0, 0.95


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What speaks for leaving the baseline for one class of experts.

    Args:
        queries: training queries that would leave it.
        gain: their mean paired gain in quality; None where there is no such query.
        bound: its lower confidence bound.
        least: g, the predicted gain from which a query leaves; infinite where none does.
    """

    queries: int
    gain: float | None
    bound: float | None
    least: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Guard:
    """Keep to ``baseline`` where there is no evidence; a score transform.

    Args:
        baseline: the pinned expert.
        known: experts with paired evidence.
        dearer: those of them that cost more than the baseline.
        cheap: evidence for experts that cost no more.
        dear: evidence for dearer ones.
        centres: (k, d) of the training queries.
        floor: least cosine to the nearest of them.
        familiar: share of the training queries above the floor.
    """

    baseline: str
    known: frozenset[str]
    dearer: frozenset[str]
    cheap: Evidence
    dear: Evidence
    centres: FloatArray
    floor: float
    familiar: float

    @classmethod
    def fit(
        cls,
        state: Mapping[str, FloatArray],
        experts: Sequence[str],
        baseline: str,
        *,
        confidence: float = 0.95,
        tolerance: float = 0.0,
        premium: float = 0.01,
        cost_weight: float = 0.0,
        among: Collection[str] | None = None,
    ) -> "Guard":
        """Learn from what a router rehearsed.

        Args:
            state: of the router, with the arrays of `routers.rehearsal`.
            experts: names of their columns.
            baseline: the pinned expert.
            confidence: of the lower bounds.
            tolerance: quality that may be lost to an expert that costs no more.
            premium: quality that a dearer expert must add.
            cost_weight: at which the router will decide.
            among: whom it will choose from, by default all; what others won is no evidence.

        Raises:
            UnknownNameError: the baseline has no outcomes.
            OptionError: the router has not rehearsed.
        """
        if baseline not in experts:
            raise UnknownNameError(
                f"baseline {baseline!r} is not one of {', '.join(experts)}, which the router "
                f"has outcomes of{nearest(baseline, experts)}"
            )
        if "rehearsal.held" not in state:
            raise OptionError("guard: the router has not rehearsed; call rehearse(data) first")
        asked = {*experts} if among is None else {baseline, *among}
        column = [i for i, name in enumerate(experts) if name in asked]
        experts = [experts[i] for i in column]
        b = experts.index(baseline)
        cost = np.nan_to_num(state["prior.cost"][column], nan=float(state["prior.scale"][0]))
        tilt = cost_weight * cost / float(state["prior.scale"][0])  # (m,)
        is_dearer = cost > cost[b] * (1 + 1e-6)
        outcome = state["rehearsal.outcome"][:, column]
        held = _Pairs.of(state["rehearsal.held"][:, column] - tilt, outcome, b)
        away = _Pairs.of(state["rehearsal.away"][:, column] - tilt, outcome, b)
        alpha = (1 - confidence) / len(_LEVELS)
        cheap = held.test(~is_dearer[held.chosen], alpha, -tolerance)
        dear = held.test(is_dearer[held.chosen], alpha, premium)
        near, far = state["rehearsal.near"], state["rehearsal.far"]
        least = np.where(is_dearer, dear.least, cheap.least)  # (m,)
        harm = _HARM * (confidence - _SURE)
        more, floor = _search(held, away, least, near, far, state["rehearsal.kind"], harm)
        cheap, dear = (replace(e, least=max(e.least, more)) for e in (cheap, dear))
        return cls(
            baseline=baseline,
            known=frozenset(experts),
            dearer=frozenset(e for e, d in zip(experts, is_dearer, strict=True) if d),
            cheap=cheap,
            dear=dear,
            centres=state["rehearsal.centres"],
            floor=floor,
            familiar=float((near >= floor).mean()),
        )

    @classmethod
    def never(cls, baseline: str) -> "Guard":
        """Return a guard that has no evidence and never leaves the baseline."""
        nothing = Evidence(queries=0, gain=None, bound=None, least=np.inf)
        return cls(
            baseline=baseline,
            known=frozenset(),
            dearer=frozenset(),
            cheap=nothing,
            dear=nothing,
            centres=np.zeros((1, 1)),
            floor=np.inf,
            familiar=0.0,
        )

    def __call__(self, scores: FloatArray, context: Context) -> FloatArray:
        """Put the baseline first on each query that may not leave it, scores (n, m)."""
        names = context.prediction.experts
        if self.baseline not in names:
            return scores
        b = names.index(self.baseline)
        rows = np.arange(len(scores))
        top = scores.argmax(axis=1)
        with np.errstate(invalid="ignore"):  # NaN where nobody may be asked
            gain = scores[rows, top] - scores[:, b]
        least = np.array([self._least(name) for name in names])[top]
        near = self._closeness(context)
        stays = ((gain < least) | (near < self.floor)) & np.isfinite(scores[:, b]) & (top != b)
        if not stays.any():
            return scores
        guarded = scores.copy()
        highest = scores[stays].max(axis=1, keepdims=True)
        # Everybody else steps behind the baseline, in the same order.
        guarded[stays] = scores[stays] - highest + scores[stays, b][:, None] - 1
        guarded[stays, b] = scores[stays, b]
        return guarded

    def note(self, before: FloatArray, after: FloatArray, context: Context) -> str | None:
        """Say what held a query back, scores (1, m)."""
        if before is after or before.argmax() == after.argmax():
            return None
        first = context.prediction.experts[int(before.argmax())]
        near, least = float(self._closeness(context)[0]), self._least(first)
        if not self.known:
            why = "there is no evidence yet"
        elif first not in self.known:
            why = f"{first} has no outcomes yet"
        elif least == np.inf:
            why = f"no evidence that {first} loses nothing"
        elif near < self.floor:
            why = f"the query is unfamiliar (closeness {near:.2f} below {self.floor:.2f})"
        else:
            why = f"a predicted gain below {least:.3f} is no evidence for {first}"
        return f"guard: keeps to the baseline {self.baseline}, {why}"

    def _closeness(self, context: Context) -> FloatArray:
        """Return the cosine (n,) to the nearest centre of the training queries."""
        close: FloatArray = (context.x[:, : self.centres.shape[1]] @ self.centres.T).max(axis=1)
        return close

    def _least(self, name: str) -> float:
        if name not in self.known:
            return np.inf
        return (self.dear if name in self.dearer else self.cheap).least


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Whom the router chose for each of n queries, the gain it predicted, and what came of it.

    Args:
        chosen: (n,) column.
        predicted: (n,) utility less that of the baseline.
        gain: (n,) quality less that of the baseline; 0 where the baseline was chosen.
        known: (n,) whether both outcomes are known and another expert was chosen.
    """

    chosen: NDArray[np.integer[Any]]
    predicted: FloatArray
    gain: FloatArray
    known: BoolArray

    @classmethod
    def of(cls, utility: FloatArray, outcome: FloatArray, b: int) -> "_Pairs":
        rows = np.arange(len(utility))
        utility = np.where(np.isnan(utility).all(axis=1, keepdims=True), 0, utility)
        chosen = utility.argmax(axis=1)
        chosen = np.where(utility[rows, chosen] > utility[:, b], chosen, b)
        gain = outcome[rows, chosen] - outcome[:, b]
        known = ~np.isnan(gain) & (chosen != b)
        predicted = utility[rows, chosen] - utility[:, b]
        return cls(chosen, predicted, np.where(known, gain, 0), known)

    def test(self, of_class: BoolArray, alpha: float, ask: float) -> Evidence:
        """Return the evidence for the queries that would go to experts of one class."""
        from scipy.stats import t

        rows = self.known & of_class
        best = Evidence(queries=int(rows.sum()), gain=None, bound=None, least=np.inf)
        if not rows.any():
            return best
        most = -np.inf
        for level in np.unique(np.quantile(self.predicted[rows], _LEVELS)):
            gain = self.gain[rows & (self.predicted >= level)]
            if len(gain) < _FEWEST:
                break
            # One more query on which everything was lost: luck without a loss is not certainty.
            more = np.append(gain, -1.0)
            error = more.std(ddof=1) / np.sqrt(len(more))
            bound = float(more.mean() - t.ppf(1 - alpha, len(more) - 1) * error)
            if best.gain is None or (bound > ask and gain.sum() > most):
                passed = bound > ask
                best = Evidence(
                    queries=len(gain),
                    gain=float(gain.mean()),
                    bound=bound,
                    least=float(level) if passed else np.inf,
                )
                most = gain.sum() if passed else most
        return best


def _search(
    held: _Pairs,
    away: _Pairs,
    least: FloatArray,
    near: FloatArray,
    far: FloatArray,
    kind: NDArray[Any],
    harm: float,
) -> tuple[float, float]:
    """Return the least predicted gain and the floor that keep every left-out category from harm.

    Of those that do, the two with which familiar queries gain most; infinite where none do.
    """
    best = (0.0, np.inf, np.inf)
    leaving = held.known & (held.predicted >= least[held.chosen])
    if not leaving.any():
        return best[1:]
    names, count = np.unique(kind, return_counts=True)
    # A few queries cannot tell harm from luck: small categories are judged together.
    small = np.isin(kind, names[count < _FEWEST])
    kinds = [np.flatnonzero(kind == k) for k in names[count >= _FEWEST]]
    kinds += [np.flatnonzero(small)] if small.any() else []
    for more, floor in product(
        np.quantile(held.predicted[leaving], _LEVELS), np.quantile(near, _FLOORS)
    ):
        total = held.gain[leaving & (held.predicted >= more) & (near >= floor)].sum()
        leaves = (away.predicted >= np.maximum(least[away.chosen], more)) & (far >= floor)
        gain = np.where(leaves, away.gain, 0)
        if total > best[0] and not any(_is_harmed(gain[rows], harm) for rows in kinds):
            best = (float(total), float(more), float(floor))
    return best[1:]


def _is_harmed(gain: FloatArray, harm: float) -> bool:
    error = gain.std() / np.sqrt(len(gain))
    return bool(gain.mean() < harm * error - 1e-12)
