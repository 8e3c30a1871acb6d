"""Logistic regression for many targets at once, by a bound that needs one factorisation.

Boehning and Lindsay, "Monotonicity of quadratic-approximation algorithms", 1988: the curvature of
the logistic loss is at most a quarter of that of least squares, so that every step

    w <- w + (Z'Z / 4 + alpha I)^-1 (Z'(y - p) - alpha w)

lowers the loss, and the matrix is the same for every step and every target. For the softmax the
bound is a half in place of a quarter (Boehning, "Multinomial logistic regression algorithm", 1992).
"""

from collections.abc import Callable

import numpy as np

from experts_registry.types import FloatArray
from routers.ridge import Ridge

__all__ = ["fit_logistic", "fit_softmax"]

_CLOSE = 1e-4  # of a step, in logits


def fit_logistic(z: FloatArray, y: FloatArray, alpha: float, *, steps: int = 60) -> Ridge:
    """Fit P(y_e = 1 | z) = sigmoid(z w_e + b_e) for every column of y (n, m) in [0, 1].

    Fractions count as that share of a success; NaN marks a missing cell. The intercept is free.
    """
    known = ~np.isnan(y)
    target = np.where(known, y, 0)

    def residual(logits: FloatArray) -> FloatArray:
        return np.where(known, target - 1 / (1 + np.exp(-np.clip(logits, -60, 60))), 0)

    count = known.sum(axis=0)
    rate = np.clip((target.sum(axis=0) + 0.5) / (count + 1), 1e-3, 1 - 1e-3)
    start = np.log(rate / (1 - rate))
    return _descend(z, np.ones(len(z)), residual, start, 0.25, alpha, steps)


def fit_softmax(
    z: FloatArray,
    y: FloatArray,
    alpha: float,
    *,
    weight: FloatArray | None = None,
    steps: int = 100,
) -> Ridge:
    """Fit P(c | z) = softmax(z w + b)_c to rows of y (n, c) that add up to one, weighted (n,)."""
    v = np.ones(len(z)) if weight is None else weight

    def residual(logits: FloatArray) -> FloatArray:
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        left: FloatArray = v[:, None] * (y - exponent / exponent.sum(axis=1, keepdims=True))
        return left

    share = v @ y / v.sum()
    return _descend(z, v, residual, np.log(np.maximum(share, 1e-6)), 0.5, alpha, steps)


def _descend(
    z: FloatArray,
    weight: FloatArray,
    residual: Callable[[FloatArray], FloatArray],
    intercept: FloatArray,
    bound: float,
    alpha: float,
    steps: int,
) -> Ridge:
    """Take bounded Newton steps with Nesterov's momentum, until they are small."""
    full = np.hstack([np.asarray(z, dtype=np.float64), np.ones((len(z), 1))])
    penalty = np.append(np.full(z.shape[1], alpha), 1e-6)
    inverse = np.linalg.inv(bound * (full * weight[:, None]).T @ full + np.diag(penalty))
    w = np.vstack([np.zeros((z.shape[1], len(intercept))), intercept])
    inverse, full = inverse.astype(np.float32), full.astype(np.float32)  # steps need no more
    ahead, momentum = w, 1.0
    for _ in range(steps):
        left = residual(full @ ahead.astype(np.float32))
        step = inverse @ (full.T @ left.astype(np.float32) - penalty[:, None] * ahead)
        before, w = w, ahead + step
        if (step * (w - before)).sum() < 0:  # overshot: momentum starts anew
            momentum = 1.0
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, momentum = w + (momentum - 1) / faster * (w - before), faster
        if np.abs(step).max() < _CLOSE:
            break
    return Ridge(w[:-1], w[-1])
