"""Chances of a right answer: a logistic head for each arm, calibrated on queries it had not seen.

The strength of the penalty, and which groups of features count how much, are those of the least
log-loss in cross-validation. Platt, "Probabilistic Outputs for Support Vector Machines",
1999: held-out logits l become probabilities sigmoid(a l + c). The standard error of a prediction
is the jackknife's over the fits that leave a fold out.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["Fitted", "Head", "balanced", "fit_head", "logit", "sigmoid"]

IntArray = NDArray[np.integer[Any]]
_STRENGTHS = (3e-3, 3e-2, 3e-1, 3.0)  # C of the penalty, small is strong
_CERTAIN = 1e-4  # no chance is nearer to 0 or 1


@dataclass(frozen=True, eq=False)
class Head:
    """A calibrated logistic model; its rows are those of z, embeddings first.

    Args:
        weight: (p + 1, 1 + folds) of z and the intercept; the first column is of all queries,
            the others leave a fold out.
        scale: (2,) Platt's a and c.
    """

    weight: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, state: Mapping[str, FloatArray], name: str) -> "Head":
        """Take a head out of named arrays."""
        return cls(state[f"{name}.weight"], state[f"{name}.scale"])

    def state(self, name: str) -> dict[str, FloatArray]:
        """Return the arrays under names of their own."""
        return {f"{name}.weight": self.weight, f"{name}.scale": self.scale}

    def __call__(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return probabilities (n,) and their standard errors (n,) for z (n, p)."""
        logits = z @ self.weight[:-1] + self.weight[-1]
        chance = sigmoid(self.scale[0] * logits + self.scale[1])  # (n, 1 + folds)
        left_out = chance[:, 1:]
        k = left_out.shape[1]
        spread = ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        return chance[:, 0], np.sqrt((k - 1) / k * spread)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head, and what it said of each training query when it had not seen it, (n,)."""

    head: Head
    held: FloatArray


def fit_head(
    z: FloatArray, y: FloatArray, fold: IntArray, weight: FloatArray, stretches: FloatArray
) -> Fitted:
    """Fit P(right | z).

    Args:
        z: (n, p) embeddings and standardised features.
        y: (n,) quality in [0, 1], a fraction is that share of a success; NaN is left out.
        fold: (n,) of the cross-validation.
        weight: (n,) of the queries.
        stretches: (c, p) candidates for what columns are multiplied by; 0 leaves one out.
    """
    known = ~np.isnan(y)
    held: FloatArray = np.zeros(len(y))
    best, least = (_STRENGTHS[0], stretches[0]), np.inf
    for strength, times in product(_STRENGTHS, stretches):
        logits = _held_out(z * times, y, fold, weight, known, strength)
        loss = _log_loss(sigmoid(logits[known]), y[known], weight[known])
        if loss < least - 1e-9:
            best, least, held = (strength, times), loss, logits
    strength, times = best
    scaled = z * times
    fits = [_fit(scaled[known], y[known], weight[known], strength)]
    for f in np.unique(fold):
        rows = known & (fold != f)
        fits.append(_fit(scaled[rows], y[rows], weight[rows], strength))
    column = np.stack(fits, axis=1)
    column[:-1] *= times[:, None]
    platt = _platt(held[known], y[known])
    head = Head(column.astype(np.float32), platt.astype(np.float32))
    return Fitted(head, _held_chances(held, y, fold, known))


def balanced(labels: tuple[str, ...]) -> FloatArray:
    """Return weights (n,) of mean 1 by which every label counts the same."""
    _, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    weight: FloatArray = len(labels) / (len(count) * count[code])
    return weight


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return probabilities that are never quite 0 or 1."""
    chance: FloatArray = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return np.clip(chance, _CERTAIN, 1 - _CERTAIN)


def logit(chance: FloatArray) -> FloatArray:
    """Return log odds."""
    p = np.clip(chance, _CERTAIN, 1 - _CERTAIN)
    odds: FloatArray = np.log(p / (1 - p))
    return odds


def _held_chances(
    logits: FloatArray, y: FloatArray, fold: IntArray, known: NDArray[np.bool_]
) -> FloatArray:
    """Calibrate each fold on the others, so that what is judged has not judged itself."""
    chance = np.empty(len(y))
    for f in np.unique(fold):
        a, c = _platt(logits[known & (fold != f)], y[known & (fold != f)])
        chance[fold == f] = sigmoid(a * logits[fold == f] + c)
    return chance


def _held_out(
    z: FloatArray,
    y: FloatArray,
    fold: IntArray,
    weight: FloatArray,
    known: NDArray[np.bool_],
    strength: float,
) -> FloatArray:
    """Return the logits (n,) of each fold by a fit on the others."""
    logits = np.empty(len(y))
    for f in np.unique(fold):
        rows = known & (fold != f)
        w = _fit(z[rows], y[rows], weight[rows], strength)
        logits[fold == f] = z[fold == f] @ w[:-1] + w[-1]
    return logits


def _platt(logits: FloatArray, y: FloatArray) -> FloatArray:
    """Return a and c (2,); a head that is wrong on what it has not seen says the mean of all."""
    spread = max(float(logits.std()) if len(logits) else 0.0, 1e-6)
    # A weak penalty in standard deviations: without one, sure heads would be made surer for ever.
    a, c = _fit(logits[:, None] / spread, y, np.ones(len(y)), 10.0)
    if a <= 0:
        return np.array([0.0, _base(y, np.ones(len(y)))])
    return np.array([a / spread, c])


def _fit(z: FloatArray, y: FloatArray, weight: FloatArray, strength: float) -> FloatArray:
    """Return weights and intercept (p + 1,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([weight * y, weight * (1 - y)])
    rows = both > 0
    label = np.concatenate([np.ones(len(y)), np.zeros(len(y))])[rows]
    if len(set(label.tolist())) < 2:
        return np.append(np.zeros(z.shape[1]), _base(y, weight))
    model = LogisticRegression(C=strength, max_iter=100, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a chance
        model.fit(np.vstack([z, z])[rows], label, sample_weight=both[rows])
    return np.append(model.coef_[0], model.intercept_[0])


def _base(y: FloatArray, weight: FloatArray) -> float:
    rate = ((weight * y).sum() + 0.5) / (weight.sum() + 1)
    return float(np.log(rate / (1 - rate)))


def _log_loss(p: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    return float((weight * loss).sum() / weight.sum())
