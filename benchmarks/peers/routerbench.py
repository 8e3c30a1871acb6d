"""RouterBench's k nearest neighbours, re-implemented from its paper.

Hu et al., "RouterBench: A Benchmark for Multi-LLM Routing System",
https://arxiv.org/abs/2403.12031: the quality and the cost that is predicted for a query are the
means over the k nearest training queries by cosine, k = 40 where it is largest, and an expert is
chosen by willingness to pay. No shrinkage, no words, no features: what routing has to beat.
"""

from dataclasses import dataclass

import numpy as np

from experts_registry.types import FloatArray
from peers.method import Queries, Scored
from routers.data import RoutingDataset

__all__ = ["RouterBenchKNN"]

_BLOCK = 500  # queries compared with all training queries at a time


@dataclass(kw_only=True)
class RouterBenchKNN(Scored):
    """Means over the nearest training queries."""

    neighbours: int = 40
    name: str = "RouterBench knn"

    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Keep everything."""
        self._x, self._table = queries.x, np.hstack([data.quality, data.cost])

    def scores(self, queries: Queries) -> FloatArray:
        """Return a score per expert (n, m)."""
        return self._means(queries)[:, : len(self._cost)]

    def costs(self, queries: Queries) -> FloatArray:
        """Return the cost per expert (n, m)."""
        return self._means(queries)[:, len(self._cost) :]

    def _means(self, queries: Queries) -> FloatArray:
        k, found = min(self.neighbours, len(self._x)), []
        for start in range(0, len(queries), _BLOCK):
            similarity = queries.x[start : start + _BLOCK] @ self._x.T
            near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            found.append(self._table[near].mean(axis=1))
        return np.concatenate(found)
