"""What quality to expect, from where a query seems to come: a table by collection, mixed.

    q_m(x) = sum_i p_i(x) Q_im,   p = softmax_i(cos(x, c_i) / T)

with c_i the mean of the queries of collection i, Q of `routers.table`, and T fitted, by
cross-entropy, to queries that are left out of their own mean. A query that is farther from every
c_i than nearly all of the collection's own queries are, left out of it, comes from nowhere here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.table import fit_table
from routers.temperature import fit_temperature_of_best

__all__ = ["Expectation"]

IntArray = NDArray[np.integer[Any]]
_PREFIX = "expected."
_FAR = 0.05  # share of a collection's own queries that are taken for strangers
_SHRINKAGE = 4.0  # pseudo-answers: every retriever is scored on every query, few are borrowed


@dataclass(frozen=True, kw_only=True, eq=False)
class Expectation:
    """Expected quality by collection.

    Args:
        centre: (g, d) unit rows, the means of the collections' queries.
        quality: (g, m).
        variance: (g, m) of the estimates.
        temperature: T, (1,).
        least: (g,) cosine with a centre below which a query is none of the collection's.
    """

    centre: FloatArray
    quality: FloatArray
    variance: FloatArray
    temperature: FloatArray
    least: FloatArray

    @classmethod
    def fit(
        cls, x: FloatArray, quality: FloatArray, group: IntArray, fold: IntArray
    ) -> "Expectation":
        """Learn from unit rows x (n, d), outcomes (n, m) and the collection of each row."""
        names, label = np.unique(group, return_inverse=True)
        table = fit_table(quality, label, len(names), shrinkage=_SHRINKAGE)
        held = np.zeros((len(x), len(names)))
        for f in np.unique(fold):
            rows = fold == f
            seen = ~rows if not rows.all() else rows
            held[rows] = x[rows] @ _centres(x[seen], label[seen], len(names)).T
        temperature = fit_temperature_of_best(held, np.eye(len(names))[label])
        return cls(
            centre=_centres(x, label, len(names)),
            quality=table.quality,
            variance=table.variance,
            temperature=np.array([temperature]),
            least=np.array([np.quantile(held[label == i, i], _FAR) for i in range(len(names))]),
        )

    def mixed(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return expected quality and its standard error, (n, m) each."""
        share = self.shares(x)
        mean = share @ self.quality
        square = share @ (self.quality**2 + self.variance)
        return mean, np.sqrt(np.maximum(square - mean**2, 0))

    def shares(self, x: FloatArray) -> FloatArray:
        """Return how likely a query comes from each collection, (n, g)."""
        exponent = x @ self.centre.T / self.temperature
        exponent = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        share: FloatArray = exponent / exponent.sum(axis=1, keepdims=True)
        return share

    def is_near(self, x: FloatArray) -> NDArray[np.bool_]:
        """Tell of which queries there may be a collection, (n,)."""
        return np.asarray((x @ self.centre.T >= self.least).any(axis=1))

    def arrays(self) -> dict[str, FloatArray]:
        """Return its numbers as arrays of a router's state."""
        return {_PREFIX + name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def read(cls, state: Mapping[str, FloatArray]) -> "Expectation":
        """Return what `arrays` was taken from."""
        names = ("centre", "quality", "variance", "temperature", "least")
        return cls(**{name: state[_PREFIX + name] for name in names})


def _centres(x: FloatArray, label: IntArray, groups: int) -> FloatArray:
    total = np.zeros((groups, x.shape[1]))
    np.add.at(total, label, x)
    centres: FloatArray = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return centres
