"""Avengers-Pro, re-implemented from its paper and its published configuration.

Zhang et al., "Beyond GPT-5: Making LLMs Cheaper and Better via Performance-Efficiency Optimized
Routing", https://arxiv.org/abs/2508.12631. Queries are clustered by k-means; in cluster j expert i
has the score

    x_ij = a * (p_ij - min p_j) / (max p_j - min p_j) + (1 - a) * (1 - cost share of i in j)

and a query goes to the expert with the largest sum over its nearest clusters. The paper says 60
clusters, the 4 nearest, and costs normalised like accuracies; its repository turns scores into
ranks, 1 / (rank + 1), weighs 3 of 25 clusters by softmax(-9 * distance), and divides costs by the
largest. Both are here.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from experts_registry.types import FloatArray
from peers.method import SETTINGS, IntArray, Method, Queries
from routers.data import RoutingDataset

__all__ = ["AvengersPro"]

_RESTARTS = 10
_MOST_ROUNDS = 1000


@dataclass(kw_only=True)
class AvengersPro(Method):
    """The performance-efficiency score over the nearest clusters.

    Args:
        variant: as in the ``paper``, or as in the repository (``ranks``).
        seed: of k-means.
    """

    variant: Literal["paper", "ranks"] = "paper"
    seed: int = 42

    def __post_init__(self) -> None:
        self.name = f"Avengers-Pro ({self.variant})"
        self._clusters, self._nearest = (60, 4) if self.variant == "paper" else (25, 3)

    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes."""
        from sklearn.cluster import KMeans

        count = min(self._clusters, len(np.unique(queries.x, axis=0)))
        kmeans = KMeans(count, random_state=self.seed, n_init=_RESTARTS, max_iter=_MOST_ROUNDS)
        label = kmeans.fit_predict(queries.x)
        self._centres = kmeans.cluster_centers_  # (k, d), not normalised, as in the repository
        means = [
            (data.quality[rows], data.cost[rows]) for rows in (label == c for c in range(count))
        ]
        self._quality = np.stack([q.mean(axis=0) for q, _ in means])  # (k, m)
        self._cost = np.stack([c.mean(axis=0) for _, c in means])
        self._tables = np.stack([self.table(a) for a in np.linspace(1, 0, SETTINGS)])

    def table(self, performance_weight: float) -> FloatArray:
        """Return the score of each expert in each cluster (k, m)."""
        cost = self._cost
        largest = cost.max(axis=1, keepdims=True)
        share = _normal(cost) if self.variant == "paper" else cost / np.maximum(largest, 1e-300)
        scores = performance_weight * _normal(self._quality) + (1 - performance_weight) * (
            1 - share
        )
        if self.variant == "paper":
            return scores
        rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
        return 1 / (rank + 1)

    def choose(self, queries: Queries) -> IntArray:
        """Choose where cost has no weight, (n,)."""
        near, weight = self._near(queries.x)
        return self._best(near, weight, self._tables[0])

    def sweep(self, queries: Queries) -> IntArray:
        """Choose at each setting, (settings, n)."""
        near, weight = self._near(queries.x)
        return np.stack([self._best(near, weight, table) for table in self._tables])

    def _near(self, x: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the nearest clusters and their weights, both (n, nearest)."""
        similarity = x @ self._centres.T
        if self.variant == "paper":  # Euclidean distance, up to what is common to all clusters
            similarity = 2 * similarity - (self._centres**2).sum(axis=1)
        near = np.argsort(-similarity, axis=1)[:, : self._nearest]
        if self.variant == "paper":
            return near, np.ones(near.shape)
        weight = np.exp(9.0 * np.take_along_axis(similarity, near, axis=1))
        return near, weight / weight.sum(axis=1, keepdims=True)

    def _best(self, near: IntArray, weight: FloatArray, table: FloatArray) -> IntArray:
        best: IntArray = np.einsum("nj,njm->nm", weight, table[near]).argmax(axis=1)
        return best


def _normal(values: FloatArray) -> FloatArray:
    """Scale each cluster's row to [0, 1]; ones where all are equal."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    width = high - low
    return np.where(width > 0, (values - low) / np.where(width > 0, width, 1), 1.0)
