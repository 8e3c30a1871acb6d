"""What every pilot was made from: the scored queries, kept so that nothing is retrieved twice.

Retrievers come and go while this table stays. A retriever that is taken away keeps its column, and
one that is added fills cells of new rows only, so that both are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.data import RoutingDataset
from routers.splits import folds

__all__ = ["ScoreMatrix"]

IntArray = NDArray[np.integer[Any]]
_PREFIX = "matrix."


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreMatrix:
    """The quality of m retrievers on n queries.

    Args:
        z: (n, d + f) the queries as the router embeds them.
        quality: (n, m) float32; NaN where a retriever was not scored.
        cost: (n, m) float32; NaN where it is not known.
        group: (n) which collection's queries, scored at one time, a row belongs to.
        fold: (n) part of a cross-validation; queries alike are in one.
        ids: (n) of the queries.
        experts: (m) names of the columns, also of those that were taken away.
        categories: (n) of the rows.
    """

    z: FloatArray
    quality: FloatArray
    cost: FloatArray
    group: IntArray
    fold: IntArray
    ids: tuple[str, ...]
    experts: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, z: FloatArray, data: RoutingDataset, *, first: int = 0) -> Self:
        """Take outcomes as one group per category, numbered from ``first``."""
        names = sorted(set(data.category))
        number = {name: first + i for i, name in enumerate(names)}
        return cls(
            z=np.asarray(z, dtype=np.float32),
            quality=data.quality.astype(np.float32),
            cost=data.cost.astype(np.float32),
            group=np.array([number[name] for name in data.category], dtype=np.intp),
            fold=folds(data),
            ids=data.ids,
            experts=data.experts,
            categories=data.category,
        )

    def extended(self, z: FloatArray, data: RoutingDataset) -> Self:
        """Return a matrix with the rows of new queries below, and new columns to the right."""
        first = int(self.group.max(initial=-1)) + 1
        more = type(self).of(z, data, first=first)
        new = tuple(name for name in data.experts if name not in self.experts)
        names = (*self.experts, *new)
        return replace(
            self,
            z=np.vstack([self.z, more.z]),
            quality=np.vstack([_under(self.quality, self.experts, names), more.columns(names)]),
            cost=np.vstack(
                [_under(self.cost, self.experts, names), _under(more.cost, more.experts, names)]
            ),
            group=np.concatenate([self.group, more.group]),
            fold=np.concatenate([self.fold, more.fold]),
            ids=self.ids + more.ids,
            experts=names,
            categories=self.categories + more.categories,
        )

    def select(self, rows: NDArray[np.bool_]) -> Self:
        """Return some rows, by a mask (n)."""
        index = np.flatnonzero(rows).tolist()
        return replace(
            self,
            z=self.z[index],
            quality=self.quality[index],
            cost=self.cost[index],
            group=self.group[index],
            fold=self.fold[index],
            ids=tuple(self.ids[i] for i in index),
            categories=tuple(self.categories[i] for i in index),
        )

    def columns(self, experts: Sequence[str]) -> FloatArray:
        """Return the quality (n, k) of these; NaN where one has no column."""
        return _under(self.quality, self.experts, experts)

    def outcomes(self, experts: Sequence[str]) -> RoutingDataset:
        """Return the cells of these as a table; ids stand for the texts, which are not kept."""
        return RoutingDataset(
            queries=tuple(f"query {name}" for name in self.ids),
            experts=tuple(experts),
            quality=self.columns(experts),
            cost=_under(self.cost, self.experts, experts),
            category=self.categories,
            ids=self.ids,
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Return its numbers as arrays of a router's state."""
        names = ("z", "quality", "cost", "group", "fold")
        return {_PREFIX + name: np.asarray(getattr(self, name), np.float32) for name in names}

    def names(self) -> dict[str, Any]:
        """Return its texts as JSON values."""
        return {"ids": self.ids, "experts": self.experts, "categories": self.categories}

    @classmethod
    def read(cls, state: Mapping[str, FloatArray], names: Mapping[str, Any]) -> Self:
        """Return the matrix that `arrays` and `names` were taken from."""
        return cls(
            z=state[f"{_PREFIX}z"],
            quality=state[f"{_PREFIX}quality"],
            cost=state[f"{_PREFIX}cost"],
            group=state[f"{_PREFIX}group"].astype(np.intp),
            fold=state[f"{_PREFIX}fold"].astype(np.intp),
            ids=tuple(names["ids"]),
            experts=tuple(names["experts"]),
            categories=tuple(names["categories"]),
        )


def _under(values: FloatArray, experts: Sequence[str], names: Sequence[str]) -> FloatArray:
    """Return the columns (n, k) of these names, NaN where one is not among the experts."""
    unknown = np.full(len(values), np.nan, dtype=np.float32)
    column = {name: values[:, i] for i, name in enumerate(experts)}
    return np.stack([column.get(name, unknown) for name in names], axis=1)
