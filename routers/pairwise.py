"""Route by the probability that a strong expert does better than a weak one.

Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data",
https://arxiv.org/abs/2406.18665: ask the strong expert where its win rate reaches a threshold, and
set the threshold to the quantile of win rates that gives the wanted share of strong calls. Their
matrix factorisation scores v . (P_e * W z), which is linear in z for each expert; so are the
strengths of `routers.bradley_terry`, which are found exactly instead of by gradient descent. A tie
is half a win, so that the win rate is (1 + expected gain) / 2.

With more than two experts the same strengths give everybody a win rate v_e(x), the mean over the
others, and a quality: what all find hard by ridge, and differences that are a share kappa of how
much oftener than usual an expert wins,

    quality_e(x) = level_e + common(x) + kappa (v_e(x) - mean v_e)

kappa is fitted to win rates of queries that were held out, as are the quantiles. Win rates may be
nearly constant (LLMRouterBench found 0.50 +- 0.008): ranks still work, and their spread is told.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from experts_registry.errors import OptionError, nearest
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.bounding import bounded
from routers.bradley_terry import Battles, Strengths, apart, mean_wins, sigmoid, steepness
from routers.data import RoutingDataset
from routers.prior import expert_level
from routers.ridge import fit_ridge
from routers.splits import folds

__all__ = ["PairwiseRouter"]

logger = logging.getLogger(__name__)

PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0)
_COMMON_PENALTY = 10.0
_FOLDS = 3
_QUANTILES = 1001
_FEW = 0.01  # win rates that differ by less are nearly constant
_AHEAD = 100.0  # utility by which the expert that the threshold names comes before all others


@dataclass(kw_only=True)
class PairwiseRouter(Router):
    """Ask the strong expert where it wins often enough; without a threshold, whoever is best.

    Args:
        strong: the better expert; by default the best on average.
        weak: the other one; by default the cheapest of the rest, or without costs the worst.
        threshold: win rate from which the strong expert is asked.
        strong_share: share of queries that go to the strong expert; sets the threshold.
        penalty: of the strengths, in queries; by default chosen by cross-validation.
        features: read the text's features beside the embedding.
    """

    name: ClassVar[str] = "pairwise"

    strong: str | None = None
    weak: str | None = None
    threshold: float | None = None
    strong_share: float | None = None
    penalty: float | None = None
    features: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.strong_share is not None:
            raise OptionError("threshold: strong_share sets it; give one of the two")
        if self.threshold is not None:
            _check_threshold(self.threshold)
        if self.strong_share is not None:
            _check_share("strong_share", self.strong_share)
        if self.penalty is not None and not 0 < self.penalty < np.inf:
            raise OptionError(f"penalty: {self.penalty!r} is not a number above 0")
        if self.strong is not None and self.strong == self.weak:
            raise OptionError(f"weak: {self.weak!r} is the strong expert; name another one")

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns."""
        return self.features

    def win_rate(self, queries: Sequence[str]) -> FloatArray:
        """Return how often the strong expert beats the weak one, ties counting half, (n,)."""
        self._require_fitted()
        return self._win_rate(self._columns(self._read(self.embed(queries))), self.state_)

    def calibrate(self, share: float) -> float:
        """Return the threshold that sends this share of queries like the training ones to strong.

        Raises:
            OptionError: the share is not between 0 and 1, or the router is not fitted.
        """
        _check_share("share", share)
        self._require_fitted()
        quantiles = self.state_["quantiles"]
        return float(np.interp(1 - share, np.linspace(0, 1, len(quantiles)), quantiles))

    def with_threshold(self, threshold: float) -> Self:
        """Return the same router with another threshold; what was learned is shared.

        Raises:
            OptionError: the threshold is not in [0, 1].
        """
        _check_threshold(threshold)
        changed = copy(self)
        changed.threshold, changed.strong_share = threshold, None
        return changed

    def _threshold(self) -> float | None:
        return self.threshold if self.strong_share is None else self.calibrate(self.strong_share)

    # -- fitting --------------------------------------------------------------------------------

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        strong, weak = self._pair(data)
        graded = np.flatnonzero((~np.isnan(data.quality)).any(axis=1))
        # In the order of their names, so that sums round alike however the columns are ordered.
        order = np.argsort(data.experts)
        z, table = x[graded], data.select(graded).only([data.experts[i] for i in order])
        battles = Battles(z, table.quality)
        penalty, held_out = _rehearsed(z, table, self.penalty)
        strengths = battles.fit(penalty)
        held_out = held_out + strengths(z).mean(axis=0)
        quality, wins = table.quality, mean_wins(held_out)
        level, usual = expert_level(quality), wins.mean(axis=0)
        kappa = _slope(wins - usual, quality - level)
        common = fit_ridge(z, _row_mean(quality - level), _COMMON_PENALTY)
        back = np.argsort(order)
        pair = [back[strong], back[weak]]
        win = sigmoid(held_out[:, pair[0]] - held_out[:, pair[1]])
        self._tell(data, (strong, weak), penalty, win)
        return {
            "weight": strengths.weight[:, back],
            "bias": strengths.bias[back],
            "level": level[back],
            "usual": usual[back],
            "kappa": np.array([kappa]),
            "common.weight": common.weight,
            "common.bias": common.intercept,
            "center": battles.mean,
            "axes": battles.axes,
            "variance": battles.variance(strengths(z), penalty)[:, back],
            "pair": np.array([strong, weak]),
            "quantiles": np.quantile(win, np.linspace(0, 1, _QUANTILES)),
        }

    def _pair(self, data: RoutingDataset) -> tuple[int, int]:
        """Return the columns of the strong and the weak expert; one twice if it is alone."""
        for what, name in (("strong", self.strong), ("weak", self.weak)):
            if name is not None and name not in data.experts:
                listed = ", ".join(data.experts)
                raise OptionError(
                    f"{what}: {name!r} is not one of {listed}, which have outcomes"
                    f"{nearest(name, data.experts)}"
                )
        mean, cost = expert_level(data.quality), _known_means(data.cost)
        column = {name: i for i, name in enumerate(data.experts)}
        # Ties go to the first by name, however the columns are ordered.
        by_name = sorted(range(len(data.experts)), key=lambda i: data.experts[i])
        best = [i for i in by_name if data.experts[i] != self.weak]
        strong = column[self.strong] if self.strong else max(best, key=lambda i: mean[i])
        rest = [i for i in by_name if i != strong] or [strong]
        price = mean if np.isnan(cost).all() else np.nan_to_num(cost, nan=np.inf)
        weak = column[self.weak] if self.weak else min(rest, key=lambda i: price[i])
        return strong, weak

    def _tell(
        self, data: RoutingDataset, pair: tuple[int, int], penalty: float, win: FloatArray
    ) -> None:
        low, high = np.quantile(win, [0.05, 0.95])
        strong, weak = (data.experts[i] for i in pair)
        self.lineage_["pairwise"] = {
            "strong": strong,
            "weak": weak,
            "penalty": penalty,
            "win_rates": [round(float(low), 4), round(float(high), 4)],
        }
        if high - low < _FEW and (self.threshold is not None or self.strong_share is not None):
            logger.warning(
                "win rates of %s over %s are nearly constant, %.4f to %.4f; "
                "shares of strong calls may be far from what was asked for",
                *(strong, weak, low, high),
            )

    # -- predicting -----------------------------------------------------------------------------

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        wins = mean_wins(_strengths(state)(x))
        common = x @ state["common.weight"] + state["common.bias"]  # (n, 1)
        beyond = state["kappa"] * (wins - state["usual"])
        return bounded(state["level"] + common + beyond)

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error (n, m): of the expert's mean, and of its strength.

        Strengths vary with the query's place on the principal axes: little was learned where no
        training query lies. Quality moves with them by kappa times the mean of P (1 - P), and
        differences by m / (m - 1) of that, for what one wins another one loses. Errors are such
        that those of two experts add up to that of their difference.
        """
        on_axes = (x - state["center"]) @ state["axes"]
        variance = on_axes**2 @ state["variance"]
        steep = state["kappa"] * apart(len(self.experts_)) * steepness(_strengths(state)(x))
        total = state["prior.error"] ** 2 + steep**2 * variance
        return np.sqrt(np.minimum(total, 0.25))

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        threshold = self._threshold()
        if threshold is None:
            return quality
        strong, weak = state["pair"].astype(int)
        is_strong = self._win_rate(x, state) >= threshold
        utility = np.array(quality, dtype=np.float64)
        named = np.where(is_strong, strong, weak)
        utility[np.arange(len(x)), named] += _AHEAD * (1 + self.cost_weight)
        return utility

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        strong, weak = (self.experts_[i] for i in state["pair"].astype(int))
        win, threshold = float(self._win_rate(x, state)[0]), self._threshold()
        details = {"strong": strong, "weak": weak, "win_rate": round(win, 4)}
        if threshold is None:
            return details
        sign = ">=" if win >= threshold else "<"
        reason = f"{strong} beats {weak} with probability {win:.3f} {sign} {threshold:.3f}"
        return {"reason": reason, "threshold": threshold, **details}

    def _win_rate(self, x: FloatArray, state: State) -> FloatArray:
        strong, weak = state["pair"].astype(int)
        between = state["weight"][:, strong] - state["weight"][:, weak]
        return sigmoid(x @ between + (state["bias"][strong] - state["bias"][weak]))


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise OptionError(f"threshold: {threshold!r} is not in [0, 1]; it is a win rate")


def _check_share(where: str, share: float) -> None:
    if not 0 < share < 1:
        raise OptionError(f"{where}: {share!r} is not between 0 and 1")


def _strengths(state: State) -> Strengths:
    return Strengths(state["weight"], state["bias"])


def _rehearsed(
    x: FloatArray, data: RoutingDataset, penalty: float | None
) -> tuple[float, FloatArray]:
    """Return the penalty, and strengths (n, m) less their means by models that did not see a row.

    Less their means, for those lean away from what is held out.
    """
    fold, best = folds(data, _FOLDS), (np.inf, 0.0, np.zeros(data.quality.shape))
    sides = [(fold != f, fold == f) for f in np.unique(fold) if (fold != f).any()]
    battles = [Battles(x[train], data.quality[train]) for train, _ in sides]
    judges = [Battles(x[held], data.quality[held]) for _, held in sides]
    found: list[Strengths | None] = [None] * len(sides)
    for value in PENALTIES if penalty is None else (penalty,):
        loss, held_out = 0.0, np.zeros(data.quality.shape)
        for i, (train, held) in enumerate(sides):
            fitted = found[i] = battles[i].fit(value, found[i])
            strengths = fitted(x[held])
            loss += judges[i].loss(strengths)
            held_out[held] = strengths - fitted(x[train]).mean(axis=0)
        if loss >= best[0]:  # the loss has one valley
            break
        best = (loss, value, held_out)
    return best[1], best[2]


def _known_means(values: FloatArray) -> FloatArray:
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    means: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _row_mean(values: FloatArray) -> FloatArray:
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1, keepdims=True)
    mean: FloatArray = total / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return mean


def _slope(p: FloatArray, t: FloatArray) -> float:
    """Return the least-squares slope of t on p, both less their row's mean; at least 0."""
    known = ~np.isnan(t)
    p = np.where(known, p - _row_mean(np.where(known, p, np.nan)), 0)
    t = np.where(known, t - _row_mean(t), 0)
    return max(float((p * t).sum() / max((p * p).sum(), 1e-9)), 0.0)
