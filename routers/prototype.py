"""Route by how near the query is to what each expert is good at: one or a few prototypes each.

The trainable version of the centroids of routers that compare a query with pilot embeddings; the
losses are those of `routers.contrastive`. Outcomes are S_ie = mean_e + b_i + r_ie, b_i being how
easy query i is for everybody. With c_e the cosine to the expert's nearest prototype, embeddings
centred, the router predicts

    q_e(x) = mean_e + b(x) + s_e (c_e(x) - mean c_e)

with slopes s_e fitted to r on held-out rows: an expert whose prototype says nothing keeps its mean;
b(x), a ridge regression, is the same for everybody. Rows of the state are of one expert each, so
that adding or leaving out one changes no other; while fitting, experts share the centre of the
embeddings, b_i and the contrastive loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.bounding import bounded
from routers.clustering import kmeans
from routers.data import RoutingDataset
from routers.knn import centred
from routers.ridge import fit_ridge
from routers.splits import folds

__all__ = ["PrototypeRouter"]

IntArray = NDArray[np.integer[Any]]
STEPS = (0, 20, 40)  # how long to train is chosen among these on held-out rows
_FOLDS = 3
_FEWEST = 30  # queries below which nothing can be held out
_GROUP = 40  # queries whose mean outcome is compared with the prediction
_PENALTY = 30.0
_LITTLE = 1e-12


@dataclass(kw_only=True)
class PrototypeRouter(Router):
    """Predict quality from the cosine to the expert's nearest prototype.

    Args:
        prototypes: per expert.
        contrast: weight of the contrastive loss beside that of the outcomes; 1 as published. On
            outcome logs a tenth predicts better.
        learning_rate: of Adam.
    """

    name: ClassVar[str] = "prototype"

    prototypes: int = 1
    contrast: float = 0.1
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prototypes < 1:
            raise OptionError(f"prototypes: {self.prototypes!r} is below 1; use 1 or more")
        for name in ("contrast", "learning_rate"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise OptionError(f"{name}: {value!r} is not a number of at least 0")

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        parts, seen = centred(data.quality), ~np.isnan(data.quality)
        centre = x.mean(axis=0, dtype=np.float64)
        z = _unit(x - centre)
        slope = error = misfit = np.zeros_like(parts.mean)
        steps, ease = STEPS[0], np.zeros_like(centre)
        fold = folds(data, _FOLDS)
        if len(x) >= _FEWEST and fold.any():  # where all queries are alike, there is one fold
            cosines = self._held_out(z, parts.residual, fold)  # (steps, n, m)
            lines = [_line(cosine, parts.residual, seen) for cosine in cosines]
            best = int(np.argmin([line.loss for line in lines]))
            steps, slope, error = STEPS[best], lines[best].slope, lines[best].error
            predicted = slope * cosines[best] + _held_out_ease(z, parts.easy, fold)[:, None]
            left = parts.residual + parts.easy[:, None] - predicted
            misfit = _misfit(z, left, predicted, seen)
            ease = _ease(z, parts.easy)
        self.lineage_["steps"] = steps
        prototypes = self._train(z, parts.residual, (steps,))[0]
        return {
            "centre": centre,
            "ease": ease,  # z has mean 0 but for its length: no intercept
            "prototypes": prototypes.reshape(-1, x.shape[1]),  # (m * prototypes, d)
            "offset": _cosine(z, prototypes).mean(axis=0),
            "mean": parts.mean,
            "slope": slope,
            "slope_error": error,
            "misfit": misfit,
        }

    def _train(self, z: FloatArray, residual: FloatArray, steps: Sequence[int]) -> list[FloatArray]:
        from routers.contrastive import train_prototypes  # torch, which routing does without

        return train_prototypes(
            z,
            residual,
            _centroids(z, residual, self.prototypes),
            steps=steps,
            contrast=self.contrast,
            learning_rate=self.learning_rate,
        )

    def _held_out(self, z: FloatArray, residual: FloatArray, fold: IntArray) -> FloatArray:
        """Return cosines (steps, n, m) to prototypes of the other folds, less their mean there."""
        cosines = np.zeros((len(STEPS), *residual.shape))
        for f in range(_FOLDS):
            held = fold == f
            for cosine, prototypes in zip(
                cosines, self._train(z[~held], residual[~held], STEPS), strict=True
            ):
                offset = _cosine(z[~held], prototypes).mean(axis=0)
                cosine[held] = _cosine(z[held], prototypes) - offset
        return cosines

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        z = _unit(x - state["centre"])
        tilt = state["slope"] * _nearness(z, state)
        return bounded(state["mean"] + (z @ state["ease"])[:, None] + tilt)

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error: of the mean, of the slope, and what both cannot follow."""
        tilt = state["slope_error"] * _nearness(_unit(x - state["centre"]), state)
        return np.sqrt(state["prior.error"] ** 2 + state["misfit"] + tilt**2)


def _nearness(z: FloatArray, state: State) -> FloatArray:
    """Return the cosine to each expert's nearest prototype, less its mean (n, m)."""
    rows = state["prototypes"].reshape(len(state["mean"]), -1, z.shape[1])
    return _cosine(z, rows) - state["offset"]


def _ease(z: FloatArray, easy: FloatArray) -> FloatArray:
    """Return how easy queries are for everybody, as weights (d,)."""
    weight: FloatArray = fit_ridge(z, easy[:, None], _PENALTY).weight[:, 0]
    return weight


def _held_out_ease(z: FloatArray, easy: FloatArray, fold: IntArray) -> FloatArray:
    ease = np.zeros(len(z))
    for f in range(_FOLDS):
        held = fold == f
        ease[held] = z[held] @ _ease(z[~held], easy[~held])
    return ease


@dataclass(frozen=True, eq=False)
class _Line:
    """Slopes and their errors (m,), and the mean squared error they leave."""

    slope: FloatArray
    error: FloatArray
    loss: float


def _line(cosine: FloatArray, residual: FloatArray, seen: NDArray[np.bool_]) -> _Line:
    """Regress residuals on held-out cosines; a slope within its error of 0 becomes 0.

    The shrinkage 1 - error^2 / slope^2 is that of James and Stein's positive-part estimator.
    Falling slopes are luck: nearer is better.
    """
    inputs = np.where(seen, cosine, 0)
    square = np.maximum((inputs**2).sum(axis=0), _LITTLE)
    slope = np.maximum((inputs * residual).sum(axis=0) / square, 0)
    left = np.where(seen, residual - slope * inputs, 0)
    error = np.sqrt((left**2).sum(axis=0) / np.maximum(seen.sum(axis=0) - 1, 1) / square)
    slope = slope * np.maximum(1 - (error / np.maximum(slope, _LITTLE)) ** 2, 0)
    loss = float((np.where(seen, residual - slope * inputs, 0) ** 2).mean())
    return _Line(slope, np.where(slope > 0, error, 0), loss)


def _misfit(
    z: FloatArray, left: FloatArray, predicted: FloatArray, seen: NDArray[np.bool_]
) -> FloatArray:
    """Return the variance (m,) of true quality around the prediction, from held-out rows.

    Between groups of queries alike: the squared mean error of each, less what luck alone gives.
    Within: what a slope of the prediction other than 1 would have changed.
    """
    _, group = kmeans(z, max(1, len(z) // _GROUP))
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)  # (groups, n)
    count, answers = member @ seen, np.maximum(seen.sum(axis=0), 1)

    def group_mean(values: FloatArray) -> FloatArray:
        mean: FloatArray = member @ np.where(seen, values, 0) / np.maximum(count, 1)
        return mean

    mean = group_mean(left)
    apart = np.where(seen, left - member.T @ mean, 0)
    inside = np.where(seen, predicted - member.T @ group_mean(predicted), 0)
    luck = group_mean(apart**2) * count / np.maximum(count - 1, 1)
    between = np.where(count > 1, count * mean**2 - luck, 0).sum(axis=0)
    within = (apart * inside).sum(axis=0) ** 2 / np.maximum((inside**2).sum(axis=0), _LITTLE)
    variance: FloatArray = (np.maximum(between, 0) + within) / answers
    return variance


def _centroids(z: FloatArray, residual: FloatArray, count: int) -> FloatArray:
    """Return unit centroids (m, count, d) of the queries that each expert is better on."""
    gain = np.maximum(residual, 0)  # (n, m)
    if count == 1:
        return _unit(gain.T @ z)[:, None]
    found = np.zeros((gain.shape[1], count, z.shape[1]))
    for e, weight in enumerate(gain.T):
        rows = np.flatnonzero(weight)
        if len(rows):
            centres, label = kmeans(z[rows], count)
            own = (label == np.arange(len(centres))[:, None]) * weight[rows]  # (<= count, rows)
            found[e] = np.resize(_unit(own @ z[rows]), found[e].shape)
    return found


def _cosine(z: FloatArray, prototypes: FloatArray) -> FloatArray:
    """Return the cosine to the nearest of each expert's unit prototypes (m, p, d), (n, m)."""
    m, p, d = prototypes.shape
    cosine: FloatArray = (z @ prototypes.reshape(m * p, d).T).reshape(len(z), m, p).max(axis=2)
    return cosine


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    result: FloatArray = rows / np.maximum(length, _LITTLE)
    return result
