"""Route by how the experts did on the training queries nearest to this one.

Hu et al., "RouterBench", https://arxiv.org/abs/2403.12031, and Li, "Rethinking Predictive Modeling
for LLM Routing", https://arxiv.org/abs/2505.12601, who finds a tuned k-NN hard to beat. With
weights w_i of the neighbours, mean_e the expert's overall quality and k0 pseudo-answers of it:

    score_e(x) = (sum_i w_i S_ie + k0 mean_e) / (sum_i w_i + k0)

An expert that some neighbours never asked is compared on the others: S_ie = mean_e + b_i + r_ie,
where b_i is how easy query i was for everybody, and r_ie is averaged where it is known. With every
cell graded this is the formula above.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.data import RoutingDataset

__all__ = ["Centred", "KNNRouter", "among_nearest", "centred"]

# A neighbour this little below the last one still counts in part: similarities differ in their
# last bits between one query and a batch, and a choice must not.
_EDGE = 1e-3
_BLOCK = 600_000  # similarities held at a time
_ROUNDS = 20
_LITTLE = 1e-6
_MOST = 0.25  # variance of an expert that may be anything in [0, 1]
_PRIOR_ANSWERS = 4.0  # as in routers.table


@dataclass(frozen=True, eq=False)
class Centred:
    """Outcomes S_ie = mean_e + easy_i + residual_ie.

    Args:
        mean: (m,) of the experts.
        easy: (n,) by how much everybody is better on the query.
        residual: (n, m), 0 where nothing was graded.
    """

    mean: FloatArray
    easy: FloatArray
    residual: FloatArray


@dataclass(frozen=True, eq=False)
class _Near:
    """What the neighbours of n queries say: score and squared error, (n, m) each."""

    score: FloatArray
    variance: FloatArray


@dataclass(kw_only=True)
class KNNRouter(Router):
    """Predict the mean quality over the nearest training queries, found exactly.

    Args:
        neighbors: how many.
        temperature: cosine by which a neighbour must be farther than the nearest one to count
            1/e of it; None counts all alike.
        shrinkage: pseudo-answers that pull the estimate to the expert's overall mean.
    """

    name: ClassVar[str] = "knn"

    neighbors: int = 100
    temperature: float | None = None
    shrinkage: float = 30.0

    # Quality and error of one prediction ask for the neighbours of one x.
    _last: tuple[FloatArray, State, _Near] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbors < 1:
            raise OptionError(f"neighbors: {self.neighbors!r} is below 1; use 1 or more")
        if self.temperature is not None and not 0 < self.temperature < np.inf:
            raise OptionError(f"temperature: {self.temperature!r} is not a number above 0")
        if not 0 <= self.shrinkage < np.inf:
            raise OptionError(f"shrinkage: {self.shrinkage!r} is not a number of at least 0")

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        seen = ~np.isnan(data.quality)
        graded = seen.any(axis=1)  # a query without outcomes is nobody's neighbour
        seen, parts = seen[graded], centred(data.quality[graded])
        return {
            "reference": x[graded].T,  # (d, train): this way round one query takes a third of it
            "mean": parts.mean,
            "answers": np.column_stack([parts.residual, parts.easy]),  # (train, m + 1)
            "seen": np.ones((len(seen), 1)) if seen.all() else seen,  # (train, 1 or m)
        }

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return self._near(x, state).score

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        return np.sqrt(self._near(x, state).variance)

    def _near(self, x: FloatArray, state: State) -> _Near:
        last = self._last  # read once: another thread may replace it
        if last is not None and last[0] is x and last[1] is state:
            return last[2]
        score = np.empty((len(x), len(state["mean"])), dtype=np.float32)
        variance = np.empty_like(score)
        for rows, weight in self._weights(x, state["reference"]):
            score[rows], variance[rows] = self._estimate(weight, state)
        result = _Near(score, variance)
        self._last = (x, state, result)
        return result

    def _weights(self, x: FloatArray, reference: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of rows, and the weight of each training query for them (rows, train)."""
        train = reference.shape[1]
        step = max(1, _BLOCK // train)
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            similarity = np.asarray(x[rows] @ reference)
            weight = among_nearest(similarity, self.neighbors)
            if self.temperature is not None:
                nearest = similarity.max(axis=1, keepdims=True)
                weight *= np.exp((similarity - nearest) / self.temperature)
            yield rows, weight

    def _estimate(self, weight: FloatArray, state: State) -> tuple[FloatArray, FloatArray]:
        """Return scores and their variances (n, m) from weights (n, train).

        Answers of unequal weight with k0 pseudo-answers are worth (sum w + k0)^2 / (sum w^2 + k0)
        equal ones. How far these pulled the estimate away from what was seen may all be error.
        """
        near, k0 = np.flatnonzero(weight.any(axis=0)), self.shrinkage
        weight, seen = weight[:, near], state["seen"][near]
        answers = weight @ state["answers"][near]  # (n, m + 1)
        count, square = weight @ seen, weight**2 @ seen  # (n, 1 or m)
        everybody = weight.sum(axis=1, keepdims=True)  # (n, 1)
        total = np.maximum(count + k0, _LITTLE)
        easy, own = answers[:, -1:] / (everybody + k0), answers[:, :-1] / total
        score = np.clip(state["mean"] + easy + own, 0, 1)
        pull = k0 * (easy / everybody + own / np.maximum(count, _LITTLE))
        borrowed = k0 / total * state["prior.error"]
        binomial = np.maximum(score * (1 - score), 0.05)  # nobody is certain
        variance = binomial * (square + k0) / total**2 + pull**2 + borrowed**2
        return score, np.where(count + k0 > _LITTLE, np.minimum(variance, _MOST), _MOST)


def among_nearest(similarity: FloatArray, k: int) -> FloatArray:
    """Return 1 for the k nearest columns of each row (n, train), 0 for others, parts in between."""
    first = similarity.shape[1] - min(k, similarity.shape[1])
    last = np.partition(similarity, first, axis=1)[:, first, None]
    share: FloatArray = ((similarity - last) / _EDGE + 1).clip(0, 1)
    return share


def centred(quality: FloatArray) -> Centred:
    """Fit mean_e + b_i to the graded cells (n, m) in turns.

    One pseudo-answer pulls each b_i to 0: a lone answer says as much of the expert as of the query.
    """
    seen = ~np.isnan(quality)
    filled = np.where(seen, quality, 0)
    answers, graded = seen.sum(axis=0), seen.sum(axis=1)
    overall = filled.sum() / max(int(seen.sum()), 1)
    easy = np.zeros(len(quality))
    for _ in range(_ROUNDS):
        left = filled.sum(axis=0) - easy @ seen
        mean = (left + _PRIOR_ANSWERS * overall) / (answers + _PRIOR_ANSWERS)
        easy = (filled.sum(axis=1) - seen @ mean) / (graded + 1)
        easy -= easy.mean()
    return Centred(mean, easy, np.where(seen, filled - mean - easy[:, None], 0))
