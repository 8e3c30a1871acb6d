"""Route by how the experts did on the clusters of training queries nearest to this one.

Zhang et al., "The Avengers", https://arxiv.org/abs/2505.19797, and "Beyond GPT-5: Making LLMs
Cheaper and Better via Performance-Efficiency Optimized Routing" (Avengers-Pro),
https://arxiv.org/abs/2508.12631. k-means with unit centres c; over the nearest J clusters

    p_c(x) = softmax(-beta (1 - x . c)),    score_e(x) = sum_c p_c(x) P_ce

where P is the shrunken table of `routers.table`. The paper sums 1 / (1 + rank of e in c) instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.clustering import kmeans
from routers.data import RoutingDataset
from routers.knn import among_nearest
from routers.splits import folds
from routers.table import fit_table, mean_cost

__all__ = ["ClusterRouter"]

IntArray = NDArray[np.integer[Any]]
Scoring = Literal["accuracy", "rank"]
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_ROWS_PER_CLUSTER = 10
_FOLDS = 5


@dataclass(kw_only=True)
class ClusterRouter(Router):
    """Ask the expert that is best on the clusters around the query.

    Args:
        clusters: how many; None chooses by cross-validation, of equals the fewest.
        nearest: clusters that are weighed.
        beta: how much nearer clusters outweigh farther ones.
        shrinkage: pseudo-answers that pull a cluster's mean to the expert's overall one.
        scoring: what experts are ranked by: ``accuracy``, the predicted quality, or ``rank``, the
            published sum of reciprocal ranks, in which the best of a cluster counts twice as much
            as the second however little it is better. Predicted quality is the same.
    """

    name: ClassVar[str] = "cluster"

    clusters: int | None = None
    nearest: int = 3
    beta: float = 9.0
    shrinkage: float = 20.0
    scoring: Scoring = "accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clusters", "nearest"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise OptionError(f"{name}: {number!r} is below 1; use 1 or more")
        for name in ("beta", "shrinkage"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise OptionError(f"{name}: {value!r} is not a number of at least 0")
        if self.scoring not in (known := get_args(Scoring)):
            raise OptionError(f"scoring: {self.scoring!r} is not one of {', '.join(known)}")

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        centres, label = self._cluster(x, data)
        count = len(centres)
        self.lineage_["clusters"] = count
        table = fit_table(data.quality, label, count, shrinkage=self.shrinkage)
        return {
            "centres": centres,
            "quality": table.quality,
            "variance": table.variance,
            "rank": 1 / (1 + _ranks(table.quality)),
            "cost": mean_cost(data.cost, label, count),
        }

    def _cluster(self, x: FloatArray, data: RoutingDataset) -> tuple[FloatArray, IntArray]:
        """Return centres and the cluster of each row, as many as predict best.

        The clusters never see an outcome, so only their tables are cross-validated. Fewer are
        taken where the loss is within a standard error of the least (Breiman et al.,
        "Classification and Regression Trees", 1984), paired by query.
        """
        if self.clusters is not None:
            return kmeans(x, self.clusters)
        sizes = [k for k in SIZES if k == 1 or k * _ROWS_PER_CLUSTER <= len(x)]
        found = [kmeans(x, k) for k in sizes]
        if len(found) == 1:
            return found[0]
        fold = folds(data, _FOLDS)
        loss = np.array([self._loss(x, data.quality, fold, *clusters) for clusters in found])
        excess = loss - loss[np.argmin(loss.mean(axis=1))]  # (sizes, n)
        error = excess.std(axis=1) / np.sqrt(len(x))
        return found[int(np.argmax(excess.mean(axis=1) <= error))]

    def _loss(
        self, x: FloatArray, quality: FloatArray, fold: IntArray, centres: FloatArray, own: IntArray
    ) -> FloatArray:
        """Return the squared error of held-out rows (n,), less what is common to the experts."""
        weight, predicted = self._weights(x, centres), np.empty(quality.shape)
        for f in range(_FOLDS):
            held = fold == f
            rest = np.where(held[:, None], np.nan, quality)
            table = fit_table(rest, own, len(centres), shrinkage=self.shrinkage)
            predicted[held] = weight[held] @ table.quality
        seen = ~np.isnan(quality)
        left = np.where(seen, quality - predicted, 0)
        # A lone answer says as much of the expert as of the query: one pseudo-answer of 0.
        common = left.sum(axis=1, keepdims=True) / (seen.sum(axis=1, keepdims=True) + 1)
        loss: FloatArray = (np.where(seen, left - common, 0) ** 2).mean(axis=1)
        return loss

    def _weights(self, x: FloatArray, centres: FloatArray) -> FloatArray:
        """Return the share of each cluster (n, c)."""
        similarity = np.asarray(x @ centres.T)
        beyond = similarity - similarity.max(axis=1, keepdims=True)
        weight = np.exp(self.beta * beyond) * among_nearest(similarity, self.nearest)
        share: FloatArray = weight / weight.sum(axis=1, keepdims=True)
        return share

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return self._weights(x, state["centres"]) @ state["quality"]

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error of a mean over cells that are uncertain and disagree."""
        weight, quality = self._weights(x, state["centres"]), state["quality"]
        square, mean = weight**2, weight @ quality
        spread = square @ quality**2 - 2 * mean * (square @ quality)
        spread += square.sum(axis=1, keepdims=True) * mean**2  # sum p^2 (P - mean)^2
        return np.sqrt(np.maximum(spread, 0) + square @ state["variance"])

    def _cost(self, x: FloatArray, state: State) -> FloatArray:
        return self._weights(x, state["centres"]) @ state["cost"]

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        if self.scoring == "accuracy":
            return quality
        return self._weights(x, state["centres"]) @ state["rank"]

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        weight = self._weights(x, state["centres"])[0]
        order = np.argsort(-weight, kind="stable")[: self.nearest].tolist()
        shares = ", ".join(f"{c} ({weight[c]:.2f})" for c in order)
        best = state["quality"].argmax(axis=1)
        return {
            "reason": f"highest predicted quality on clusters {shares}",
            "clusters": {str(c): round(float(weight[c]), 4) for c in order},
            "map": {str(c): self.experts_[best[c]] for c in order},
        }


def _ranks(quality: FloatArray) -> FloatArray:
    """Return how many experts are better on each cluster (c, m); equals share a rank."""
    ranks: FloatArray = (quality[:, None, :] > quality[:, :, None]).sum(axis=2).astype(float)
    return ranks
