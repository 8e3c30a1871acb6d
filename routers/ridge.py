"""Linear least squares with a penalty, for many targets at once and with missing cells."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["Ridge", "fit_leverage", "fit_ridge", "leverage", "ridge_path"]

_AXES = 64  # principal axes along which the queries' variance is known one by one


@dataclass(frozen=True, eq=False)
class Ridge:
    """Prediction ``z @ weight + intercept``: weight (d, m), intercept (m,)."""

    weight: FloatArray
    intercept: FloatArray

    def __call__(self, z: FloatArray) -> FloatArray:
        """Predict (n, m)."""
        result: FloatArray = z @ self.weight + self.intercept
        return result


def fit_ridge(
    z: FloatArray, y: FloatArray, alpha: float, *, weight: FloatArray | None = None
) -> Ridge:
    """Minimise sum_i v_i (y_i - z_i w - b)^2 + alpha |w|^2 for every column of y.

    Args:
        z: (n, d).
        y: (n, m); NaN marks a missing cell, a column without any gives zeros.
        alpha: penalty, in queries for rows of unit length; the intercept is free.
        weight: (n,) v, by default 1.
    """
    return ridge_path(z, y, [alpha], weight=weight)[0]


def ridge_path(
    z: FloatArray, y: FloatArray, alphas: list[float], *, weight: FloatArray | None = None
) -> list[Ridge]:
    """Fit one `Ridge` for each penalty; columns with the same missing cells share the work."""
    # Single precision is twice as fast, and the penalty hides what it loses.
    z = np.asarray(z, dtype=z.dtype if min(alphas) >= 1 else np.float64)
    v = np.ones(len(z), z.dtype) if weight is None else np.asarray(weight, dtype=z.dtype)
    y = np.asarray(y, dtype=z.dtype)
    known = ~np.isnan(y)
    patterns, group = np.unique(known, axis=1, return_inverse=True)
    found = [Ridge(np.zeros((z.shape[1], y.shape[1])), np.zeros(y.shape[1])) for _ in alphas]
    for g, rows in enumerate(patterns.T):
        columns = np.flatnonzero(group.ravel() == g)
        if rows.any():
            target = y[np.ix_(rows, columns)]
            for ridge, part in zip(found, _solve(z[rows], target, v[rows], alphas), strict=True):
                ridge.weight[:, columns], ridge.intercept[columns] = part.weight, part.intercept
    return found


def _solve(z: FloatArray, y: FloatArray, v: FloatArray, alphas: list[float]) -> list[Ridge]:
    total = v.sum(dtype=np.float64)
    mean, level = v @ z / total, v @ y / total
    z = z - mean.astype(z.dtype)
    gram, moment = (z * v[:, None]).T @ z, z.T @ (v[:, None] * (y - level))
    eye, found = np.eye(z.shape[1]), []
    for alpha in alphas:
        w = np.linalg.solve(gram + max(alpha, 1e-9) * eye, moment)
        found.append(Ridge(w, level - mean @ w))
    return found


def fit_leverage(z: FloatArray, alpha: float) -> dict[str, FloatArray]:
    """Return the state arrays ``centre`` (d,), ``axes`` (d, r) and ``inverse`` (r + 1,).

    Exact up to `_AXES` dimensions. Of more, the variance beyond the principal axes is taken for
    the same in every direction, so that one query costs d r multiplications and not d d.
    """
    centre = z.mean(axis=0)
    power, axes = np.linalg.eigh((z - centre).T @ (z - centre))
    power, axes = power[::-1].clip(0), axes[:, ::-1]
    rest = power[_AXES:].mean() if len(power) > _AXES else np.inf
    inverse = 1 / (np.append(power[:_AXES], rest) + alpha)
    return {"centre": centre, "axes": axes[:, :_AXES], "inverse": inverse}


def leverage(z: FloatArray, state: Mapping[str, FloatArray]) -> FloatArray:
    """Return z' (Z'Z + alpha I)^-1 z (n, 1): how little was seen where a query lies."""
    centred = z - state["centre"]
    along = (centred @ state["axes"]) ** 2  # (n, r)
    beyond = np.vecdot(centred, centred) - along.sum(axis=1)
    inverse = state["inverse"]
    result: FloatArray = along @ inverse[:-1] + np.maximum(beyond, 0) * inverse[-1]
    return result[:, None]
