"""Strengths that depend on the query: who beats whom, learned from pairs of outcomes.

Bradley and Terry, "Rank analysis of incomplete block designs", Biometrika 39, 1952, with strengths
that are linear in the query, as in the matrix factorisation of RouteLLM:

    P(a beats b | x) = sigma(s_a(x) - s_b(x)),  s_e(x) = w_e . (z - mean z) + b_e

    min  sum_i 2 / m_i sum_{a < b} H(y_iab, P(a beats b | x_i)) + alpha |w|^2 + |b|^2

with the cross-entropy H of the share y_iab = (1 + S_ia - S_ib) / 2 that a won; m_i counts the
outcomes of query i, whose m_i (m_i - 1) / 2 pairs are worth no more than these. A tie is half a win
and half a loss, as in Elo ratings: the win rate is then (1 + expected gain) / 2, by which queries
are best ranked. RouteLLM drops ties; then it is easily highest where hardly any answers differ.
For two experts this is logistic regression with the penalty alpha / 2 |w_a - w_b|^2. The penalty
on b keeps the strength of an expert that never lost finite.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["Battles", "Strengths", "apart", "mean_wins", "sigmoid", "steepness"]

_BLOCK = 500_000  # pairs looked at a time
_LEVEL_PENALTY = 1.0
_STEPS = 200


@dataclass(frozen=True, eq=False)
class Strengths:
    """s_e(x) = x . weight_e + bias_e: weight (d, m), bias (m,)."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Return the strengths (n, m)."""
        strengths: FloatArray = x @ self.weight + self.bias
        return strengths


class Battles:
    """All pairs of outcomes on the same query, and the queries on their principal axes.

    Args:
        x: (n, d).
        quality: (n, m) in [0, 1]; NaN marks a missing outcome.
    """

    def __init__(self, x: FloatArray, quality: FloatArray) -> None:
        x = np.asarray(x, dtype=np.float64)
        self.known: NDArray[np.bool_] = ~np.isnan(quality)
        self.quality = np.where(self.known, quality, 0)
        self.mean = x.mean(axis=0)
        centred = x - self.mean
        power, self.axes = np.linalg.eigh(centred.T @ centred)
        self.power = np.maximum(power, 0)  # (d,)
        # The intercept is one more axis: the same for every query, and at right angles to the rest.
        self._inputs = np.hstack([centred @ self.axes, np.ones((len(x), 1))])  # (n, d + 1)
        m = quality.shape[1]
        first, second = np.triu_indices(m, 1)
        self._pairs = np.eye(m)[first] - np.eye(m)[second]  # (pairs, m)

    def fit(self, alpha: float, start: Strengths | None = None) -> Strengths:
        """Return the most likely strengths, by L-BFGS on whitened axes."""
        from scipy.optimize import minimize

        penalty = np.append(np.full(len(self.power), alpha), _LEVEL_PENALTY)
        # The logistic curvature is at most 1/4: on these axes the problem is nearly round.
        scale = 1 / np.sqrt(np.append(self.power, len(self._inputs)) / 4 + 2 * penalty)
        shape = (len(penalty), self.quality.shape[1])

        def objective(flat: FloatArray) -> tuple[float, FloatArray]:
            w = flat.reshape(shape) * scale[:, None]
            loss, slope = self._loss(self._inputs @ w)
            gradient = self._inputs.T @ slope + 2 * penalty[:, None] * w
            total = loss + float((penalty[:, None] * w**2).sum())
            return total, (gradient * scale[:, None]).ravel()

        first = np.zeros(shape) if start is None else self._onto_axes(start) / scale[:, None]
        options = {"maxiter": _STEPS, "ftol": 1e-10, "gtol": 1e-6}
        found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        w = found.x.reshape(shape) * scale[:, None]
        weight = self.axes @ w[:-1]
        return Strengths(weight, w[-1] - self.mean @ weight)

    def loss(self, strengths: FloatArray) -> float:
        """Return the weighted loss of strengths (n, m), without penalties."""
        return self._loss(strengths)[0]

    def variance(self, strengths: FloatArray, alpha: float) -> FloatArray:
        """Return the variance of the experts' weights on each axis (d, m), by Laplace.

        With c_e the mean curvature of expert e's pairs, l_k the power of an axis and f the
        dispersion, f / (c_e l_k m / (m - 1) + 2 alpha). Added for two experts it is the variance of
        their difference, all pairs being alike. Outcomes of pairs vary less than coins (f < 1)
        where ties are many.
        """
        n, m = self.quality.shape
        curvature, left, usual = np.zeros(m), 0.0, 1e-9
        for rows, share, weight in self._blocks():
            p = sigmoid(strengths[rows] @ self._pairs.T)
            coin = weight * p * (1 - p)
            curvature += coin.sum(axis=0) @ np.abs(self._pairs)
            left, usual = left + float((weight * (share - p) ** 2).sum()), usual + float(coin.sum())
        curvature *= apart(m) / n
        variance: FloatArray = left / usual / (np.outer(self.power, curvature) + 2 * alpha)
        return variance

    def _onto_axes(self, s: Strengths) -> FloatArray:
        return np.vstack([self.axes.T @ s.weight, s.bias + self.mean @ s.weight])

    def _loss(self, strengths: FloatArray) -> tuple[float, FloatArray]:
        """Return the loss and its slope in each strength (n, m)."""
        loss, slope = 0.0, np.empty_like(strengths)
        for rows, share, weight in self._blocks():
            lead = strengths[rows] @ self._pairs.T
            small = np.exp(-np.abs(lead))
            each = np.log1p(small) + np.maximum(lead, 0) - share * lead
            loss += float((weight * each).sum())
            expected = np.where(lead > 0, 1, small) / (1 + small)  # sigma(lead)
            slope[rows] = (weight * (expected - share)) @ self._pairs
        return loss, slope

    def _blocks(self) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Yield rows, and of their pairs (rows, pairs) the share that a won, and the weight."""
        step = max(1, _BLOCK // max(len(self._pairs), 1))
        for start in range(0, len(self.quality), step):
            rows = slice(start, start + step)
            known = self.known[rows].astype(float)
            gap = self.quality[rows] @ self._pairs.T
            weight = 2 / np.maximum(known.sum(axis=1, keepdims=True), 1)
            weight = weight * (known @ np.abs(self._pairs).T > 1.5)  # both are known
            yield rows, (1 + gap) / 2, weight


def sigmoid(values: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-v))."""
    result: FloatArray = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return result


def apart(m: int) -> float:
    """Return how much faster a difference to another expert moves than one's own mean over all."""
    return m / max(m - 1, 1)


def mean_wins(strengths: FloatArray) -> FloatArray:
    """Return how often each expert beats another one on average (n, m); 1/2 if it is alone."""
    return _mean_over_others(strengths, lambda p: p, 0.5)


def steepness(strengths: FloatArray) -> FloatArray:
    """Return how fast the mean win rate rises with the expert's own strength (n, m)."""
    return _mean_over_others(strengths, lambda p: p * (1 - p), 0.25)


def _mean_over_others(
    strengths: FloatArray, of: Callable[[FloatArray], FloatArray], itself: float
) -> FloatArray:
    n, m = strengths.shape
    if m == 1:
        return np.full((n, 1), itself)
    mean, step = np.empty((n, m)), max(1, _BLOCK // m**2)
    for start in range(0, n, step):
        s = strengths[start : start + step]
        total = of(sigmoid(s[:, :, None] - s[:, None, :])).sum(axis=2)
        mean[start : start + step] = (total - itself) / (m - 1)
    return mean
