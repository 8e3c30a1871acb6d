"""Route by a low-rank model of queries and experts, also with few outcomes of an expert.

    quality_e(x) = level_e + p_e . u(x),  u(x) = B'(z - mean z),  B (d, r), p_e (r,)

The family of matrix factorisation over queries that are read: Ong et al., "RouteLLM",
https://arxiv.org/abs/2406.18665, learn v . (P_e * W z) from pairs, and Zhuang et al., "EmbedLLM",
https://arxiv.org/abs/2410.02223, a classifier of P_e * (W z + b) from single outcomes, both by
gradient descent. With v folded into P_e both are linear in z with coefficients of low rank, as
here. Here squared error is minimised, which has a closed form:

1. Reduced-rank ridge regression (Izenman, J. Multivariate Analysis 5, 1975; Mukherjee and Zhu,
   "Reduced Rank Ridge Regression and Its Kernel Extensions", 2011): W by ridge, V the leading
   right singular vectors of the fitted values Z W, B = W V. Missing cells are filled with the fit
   in turns, so that one decomposition of Z serves all.
2. Rank and penalty by cross-validation: the double-centred variance that is explained out of fold,
   for what all experts find hard does not matter to a choice.
3. (level_e, p_e) by ridge of the expert's outcomes on the out-of-fold u, around the mean expert:
   theta_e ~ N(theta, S) with theta and S by expectation-maximisation (empirical Bayes). An expert
   of few outcomes stays near the mean expert, with a wide error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.bounding import bounded
from routers.data import RoutingDataset
from routers.splits import folds

__all__ = ["FactorRouter"]

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer[Any]]
_RANKS = 8  # the most that cross-validation tries
_ALPHAS = (3.0, 10.0, 30.0, 100.0)
_FILL_ALPHA = 30.0
_FOLDS = 5
_ROUNDS = 8  # of filling missing cells
_STEPS = 30  # of expectation-maximisation
_LEVEL_SPREAD = 0.15  # prior standard deviation of an expert's mean quality around the others'
_NOISE_ANSWERS = 5.0  # pseudo-outcomes that pull an expert's noise to the pooled one
_LEAST_VARIANCE = 0.05  # of an outcome: an expert that was always right is not certain


@dataclass(frozen=True, eq=False)
class _Rotated:
    """Centred queries on their principal axes: ridge for any target and penalty is a division."""

    mean: FloatArray  # (d,)
    axes: FloatArray  # (d, d)
    power: FloatArray  # (d,) sum of squares along each axis
    scores: FloatArray  # (n, d)

    @staticmethod
    def of(z: FloatArray) -> "_Rotated":
        mean = z.mean(axis=0)
        centred = z - mean
        power, axes = np.linalg.eigh(centred.T @ centred)
        return _Rotated(mean, axes, np.maximum(power, 0), centred @ axes)

    def solve(self, y: FloatArray, alpha: float) -> FloatArray:
        """Return the ridge coefficients on the axes (d, m) for y (n, m)."""
        coefficients: FloatArray = self.scores.T @ y / (self.power + alpha)[:, None]
        return coefficients


@dataclass(frozen=True, eq=False)
class _Loadings:
    """The posterior of the experts' levels and loadings."""

    mean: FloatArray  # (m, 1 + r)
    covariance: FloatArray  # (m, 1 + r, 1 + r)


@dataclass(kw_only=True)
class FactorRouter(Router):
    """Predict quality from a few directions that all experts share.

    Args:
        rank: how many directions; None chooses by cross-validation.
        penalty: of the regression, in queries; None chooses by cross-validation.
        features: read the text's features beside the embedding.
    """

    name: ClassVar[str] = "factor"

    rank: int | None = None
    penalty: float | None = None
    features: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"rank: {self.rank!r} is below 1; use 1 or more")
        if self.penalty is not None and not 0 < self.penalty < np.inf:
            raise OptionError(f"penalty: {self.penalty!r} is not a number above 0")

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns."""
        return self.features

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        graded = np.flatnonzero((~np.isnan(data.quality)).any(axis=1))
        data, z = data.select(graded), np.asarray(x[graded], dtype=np.float64)
        known = ~np.isnan(data.quality)
        y = np.where(known, data.quality - _means(data.quality, known), 0)  # (n, m)
        alphas = list(_ALPHAS) if self.penalty is None else [self.penalty]
        held_out = _held_out(z, y, known, folds(data, _FOLDS), alphas)  # (alphas, n, m)
        rotated = _Rotated.of(z)
        filled = _filled(rotated, y, known)
        solved = [rotated.solve(filled, alpha) for alpha in alphas]
        axes = [_axes(w, rotated.power) for w in solved]
        best, rank = self._chosen(held_out, axes, y, known)
        v = axes[best][:, :rank]
        u = held_out[best] @ v  # (n, r)
        loadings = _posterior(u, data.quality, known)
        left = filled @ v - u
        noise = left.T @ left / len(z)  # (r, r) of the targets that u was learned from
        p = loadings.mean[:, 1:]
        self.lineage_["factor"] = {"rank": rank, "penalty": alphas[best]}
        return {
            "center": rotated.mean,
            "directions": rotated.axes @ solved[best] @ v,
            "level": loadings.mean[:, 0],
            "loadings": p.T,
            "covariance": loadings.covariance.reshape(len(p), -1).T,
            "whitening": rotated.axes / np.sqrt(rotated.power + alphas[best]),
            "noise": np.einsum("mr,rs,ms->m", p, noise, p),
        }

    def _chosen(
        self, held_out: FloatArray, axes: list[FloatArray], y: FloatArray, known: BoolArray
    ) -> tuple[int, int]:
        """Return which penalty and which rank explain most out of fold."""
        most = min(_RANKS if self.rank is None else self.rank, y.shape[1])
        ranks = range(1, most + 1) if self.rank is None else [most]
        found = [
            (_explained(predicted @ v[:, :rank] @ v[:, :rank].T, y, known), i, rank)
            for i, (predicted, v) in enumerate(zip(held_out, axes, strict=True))
            for rank in ranks
        ]
        # Of two that explain alike the simpler one: the larger penalty, the lower rank.
        _, best, rank = max(found, key=lambda f: (round(f[0], 9), f[1], -f[2]))
        return best, rank

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        u = (x - state["center"]) @ state["directions"]
        return bounded(u @ state["loadings"] + state["level"])

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error (n, m): of level and loadings, and of the directions.

        With g = (1, u), C_e the covariance of (level_e, p_e) and N that of the noise in the
        targets, var = g' C_e g + p_e' N p_e h(x), where h = z'(Z'Z + alpha)^-1 z grows with the
        distance from the training queries.
        """
        centred = x - state["center"]
        g = np.hstack([np.ones((len(x), 1)), centred @ state["directions"]])
        outer = (g[:, :, None] * g[:, None, :]).reshape(len(x), -1)
        leverage = ((centred @ state["whitening"]) ** 2).sum(axis=1, keepdims=True)
        variance: FloatArray = outer @ state["covariance"] + leverage * state["noise"]
        error: FloatArray = np.sqrt(variance.clip(0, 0.25))
        return error


def _means(quality: FloatArray, known: BoolArray) -> FloatArray:
    total = np.where(known, quality, 0).sum(axis=0)
    means: FloatArray = total / np.maximum(known.sum(axis=0), 1)
    return means


def _filled(rotated: _Rotated, y: FloatArray, known: BoolArray) -> FloatArray:
    """Fill the missing cells with what ridge predicts for them, in turns.

    The first guess is what all experts together make of the query.
    """
    if known.all():
        return y
    common = y.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    guess = rotated.scores @ rotated.solve(common, _FILL_ALPHA)
    filled = np.where(known, y, guess)
    for _ in range(_ROUNDS):
        filled = np.where(known, y, rotated.scores @ rotated.solve(filled, _FILL_ALPHA))
    return filled


def _held_out(
    z: FloatArray, y: FloatArray, known: BoolArray, fold: IntArray, alphas: list[float]
) -> FloatArray:
    """Return ridge predictions (alphas, n, m) of each row by models that did not see its fold.

    Without the intercept, which would lean away from the fold's own mean.
    """
    predicted = np.zeros((len(alphas), *y.shape))
    for train, held in _sides(fold):
        if len(alphas) == 1 and known[train].all():  # as below, without the axes: a fifth of it
            mean = z[train].mean(axis=0)
            predicted[0, held] = (z[held] - mean) @ _solved(z[train] - mean, y[train], alphas[0])
            continue
        rotated = _Rotated.of(z[train])
        filled = _filled(rotated, y[train], known[train])
        scores = (z[held] - rotated.mean) @ rotated.axes
        for i, alpha in enumerate(alphas):
            predicted[i, held] = scores @ rotated.solve(filled, alpha)
    return predicted


def _solved(centred: FloatArray, y: FloatArray, alpha: float) -> FloatArray:
    """Return the ridge coefficients (d, m) for one penalty."""
    from scipy.linalg import solve

    is_wide = len(centred) < centred.shape[1]  # (Z'Z + aI)^-1 Z' = Z' (ZZ' + aI)^-1
    gram = centred @ centred.T if is_wide else centred.T @ centred
    gram[np.diag_indices_from(gram)] += alpha
    target = y if is_wide else centred.T @ y
    found: FloatArray = solve(gram, target, assume_a="pos")
    return centred.T @ found if is_wide else found


def _sides(fold: IntArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    for f in np.unique(fold):
        if (fold != f).any():
            yield fold != f, fold == f


def _axes(w: FloatArray, power: FloatArray) -> FloatArray:
    """Return the right singular vectors (m, m) of the fitted values, the leading one first."""
    return np.linalg.eigh((w * power[:, None]).T @ w)[1][:, ::-1]


def _explained(predicted: FloatArray, y: FloatArray, known: BoolArray) -> float:
    """Return the share of the double-centred variance explained, after scaling by at least 0."""
    p, t = _centred_rows(predicted, known), _centred_rows(y, known)
    together, alone, total = (p * t).sum(), (p * p).sum(), (t * t).sum()
    return float(max(together, 0) ** 2 / max(alone * total, 1e-300))


def _centred_rows(values: FloatArray, known: BoolArray) -> FloatArray:
    values = np.where(known, values, 0)
    mean = values.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, values - mean, 0)


def _posterior(u: FloatArray, quality: FloatArray, known: BoolArray) -> _Loadings:
    """Fit quality_e = theta_e . (1, u) for all experts around their mean (empirical Bayes)."""
    g = np.hstack([np.ones((len(u), 1)), u])  # (n, k)
    y, (m, k) = np.where(known, quality, 0), (known.shape[1], g.shape[1])
    outer = (g[:, :, None] * g[:, None, :]).reshape(len(g), -1)
    gram = (known.T @ outer).reshape(m, k, k)
    moment, square, count = y.T @ g, (y**2).sum(axis=0), known.sum(axis=0)
    # u is in units of all experts' loadings, which together have length 1 in each direction.
    spread = np.diag([_LEVEL_SPREAD**2, *[1 / m] * (k - 1)])
    center, covariance = np.array([quality[known].mean(), *[0.0] * (k - 1)]), spread
    noise = np.full(m, max(float(quality[known].var()), _LEAST_VARIANCE))
    for _ in range(_STEPS):
        precision = np.linalg.inv(covariance)
        each = np.linalg.inv(precision + gram / noise[:, None, None])  # (m, k, k)
        pulled = moment / noise[:, None] + precision @ center
        theta = (each @ pulled[:, :, None])[:, :, 0]
        center = theta.mean(axis=0)
        away = theta - center
        covariance = (spread + away.T @ away + each.sum(axis=0)) / (m + 1)
        left = square - 2 * (moment * theta).sum(axis=1)
        left = left + np.einsum("mk,mkl,ml->m", theta, gram, theta)
        pooled = max(float(left.sum() / count.sum()), _LEAST_VARIANCE)
        noise = (np.maximum(left, 0) + _NOISE_ANSWERS * pooled) / (count + _NOISE_ANSWERS)
    return _Loadings(theta, each)
