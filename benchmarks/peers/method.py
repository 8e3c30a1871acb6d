"""What every method of the benchmark is: fit, then choose an expert at each setting of a knob.

Most methods predict a score per expert and are swept by subtracting a weight times the expert's
mean cost. With two experts that is the threshold on the strong model's win rate that RouteLLM uses:
strong iff s_strong - s_weak >= weight * (c_strong - c_weak).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = [
    "BestSingle",
    "CategoryTable",
    "IntArray",
    "Method",
    "Queries",
    "Scored",
    "cheapest_best",
]

IntArray = NDArray[np.integer[Any]]
SETTINGS = 61  # of every knob: as many points for each method
_CALIBRATION = 400  # training rows that the settings are read from


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """What may be looked at before a choice.

    Args:
        texts: (n).
        x: (n, d) embeddings with unit rows.
        category: (n) true labels; only the per-category table reads them.
    """

    texts: Sequence[str]
    x: FloatArray
    category: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | IntArray) -> "Queries":
        """Return some rows."""
        return Queries(
            texts=[self.texts[i] for i in rows],
            x=self.x[np.asarray(rows)],
            category=[self.category[i] for i in rows],
        )


class Method(ABC):
    """A way to route."""

    name: str

    @abstractmethod
    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes without missing cells; the queries are those of the data."""

    @abstractmethod
    def choose(self, queries: Queries) -> IntArray:
        """Return the expert of each query where cost has no weight, (n,)."""

    def sweep(self, queries: Queries) -> IntArray:
        """Return choices at each setting of the knob (settings, n), the first as `choose`."""
        return self.choose(queries)[None]


def cheapest_best(utility: FloatArray, cost: FloatArray) -> IntArray:
    """Return the column of the largest utility, of equal ones the cheapest, (n,)."""
    tied = utility >= utility.max(axis=1, keepdims=True)
    columns: IntArray = np.argmin(np.where(tied, cost, np.inf), axis=1)
    return columns


class Scored(Method):
    """Choose by score less weight times mean cost; weights are quantiles on training rows."""

    _cost: FloatArray  # (m,) mean on training rows
    _weights: FloatArray

    @abstractmethod
    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn what `scores` needs."""

    @abstractmethod
    def scores(self, queries: Queries) -> FloatArray:
        """Return a score per expert (n, m)."""

    def costs(self, queries: Queries) -> FloatArray:
        """Return the cost per expert (n, m); by default the mean of each."""
        return np.broadcast_to(self._cost, (len(queries), len(self._cost)))

    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes."""
        self._cost = data.cost.mean(axis=0)
        self.learn(data, queries)
        some = np.unique(np.linspace(0, len(data) - 1, _CALIBRATION).astype(int))
        part = queries.take(some)
        self._weights = cost_weights(self.scores(part), self.costs(part), SETTINGS - 1)

    def choose(self, queries: Queries) -> IntArray:
        """Choose where cost has no weight, (n,)."""
        return cheapest_best(self.scores(queries), self.costs(queries))

    def sweep(self, queries: Queries) -> IntArray:
        """Choose at each setting, (settings, n)."""
        score, cost = self.scores(queries), self.costs(queries)
        return np.stack([cheapest_best(score - w * cost, cost) for w in [0.0, *self._weights]])


def cost_weights(score: FloatArray, cost: FloatArray, count: int) -> FloatArray:
    """Return weights at which choices change: quantiles of (s_a - s_b) / (c_a - c_b).

    Of experts a dearer than b; between two experts these are all thresholds, so that every share
    of calls to the strong one comes up, between more only those where a has the higher score.
    """
    gain = score[:, :, None] - score[:, None, :]  # (n, m, m)
    price = cost[:, :, None] - cost[:, None, :]
    useful = (price > 0) & ((gain > 0) | (score.shape[1] == 2))
    if not useful.any():
        return np.zeros(0)
    slopes = gain[useful] / price[useful]
    weights: FloatArray = np.unique(np.quantile(slopes, np.linspace(0, 1, count)))
    return weights + 1e-9 * np.abs(weights)  # beyond the tie, whatever rounding does


class BestSingle(Scored):
    """One expert for all queries, whichever pays at the weight."""

    name = "best single"

    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn what `scores` needs."""
        self._mean = data.quality.mean(axis=0)

    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes."""
        super().fit(data, queries)
        # Constant scores change at a few weights, all of which are worth a point.
        score, cost = self._mean[None], self._cost[None]
        self._weights = cost_weights(score, cost, 2 * len(self._mean) ** 2)

    def scores(self, queries: Queries) -> FloatArray:
        """Return a score per expert (n, m)."""
        return np.broadcast_to(self._mean, (len(queries), len(self._mean)))


class CategoryTable(Scored):
    """The best expert of the query's true category, by means and mean costs within it."""

    name = "category table"

    def learn(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn what `scores` needs."""
        everything = (data.quality.mean(axis=0), data.cost.mean(axis=0))
        self._table = {
            name: (data.quality[rows].mean(axis=0), data.cost[rows].mean(axis=0))
            for c, name in enumerate(data.categories)
            if (rows := data.labels == c).any()
        }
        self._general = everything

    def scores(self, queries: Queries) -> FloatArray:
        """Return a score per expert (n, m)."""
        return np.stack([self._table.get(c, self._general)[0] for c in queries.category])

    def costs(self, queries: Queries) -> FloatArray:
        """Return the cost per expert (n, m)."""
        return np.stack([self._table.get(c, self._general)[1] for c in queries.category])
