"""The one table routers learn from: queries x experts -> quality and cost, cells may be missing."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import DataError, nearest
from experts_registry.types import FloatArray

__all__ = ["CostColumn", "RoutingDataset"]

CostColumn = Literal["usd", "active_params", "seconds"]
Rows = Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]
SPLITS = ("", "train", "val", "test")


def _nothing() -> FloatArray:
    return np.empty((0, 0))


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingDataset:
    """Outcomes of n queries with m experts.

    Args:
        queries: (n) texts.
        experts: (m) names.
        quality: (n, m) in [0, 1]; NaN where an expert was not graded.
        cost: (n, m), at least 0; NaN where unknown, as everywhere by default.
        category: (n) labels; an empty string where a query has none.
        ids: (n) unique names of the queries; by default their row numbers.
        split: (n) ``train``, ``val``, ``test``, or an empty string where nobody decided.
        cost_unit: what cost counts: ``usd``, ``B params``, ``s``, or nothing.

    Raises:
        DataError: shapes disagree, a name comes twice, or a value is out of its range.
    """

    queries: tuple[str, ...]
    experts: tuple[str, ...]
    quality: FloatArray
    cost: FloatArray = field(default_factory=_nothing)
    category: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    cost_unit: str = "usd"

    def __post_init__(self) -> None:
        n, m = len(self.queries), len(self.experts)
        self._set("queries", tuple(self.queries))
        self._set("experts", tuple(self.experts))
        self._set("category", tuple(self.category) or ("",) * n)
        self._set("ids", tuple(self.ids) or tuple(map(str, range(n))))
        self._set("split", tuple(self.split) or ("",) * n)
        self._set("quality", _frozen_array(self.quality, "quality"))
        cost = self.cost if np.size(self.cost) else np.full((n, m), np.nan)
        self._set("cost", _frozen_array(cost, "cost"))
        self._check_shapes(n, m)
        self._check_names()
        self._check_range("quality", (self.quality < 0) | (self.quality > 1), "grade in [0, 1]")
        self._check_range("cost", (self.cost < 0) | np.isinf(self.cost), "a cost is at least 0")

    @staticmethod
    def load(path: str | Path, *, cost: CostColumn | None = None) -> "RoutingDataset":
        """Read outcomes: Parquet (a file or a folder), a folder of public logs, or JSON lines.

        Args:
            path: a ``.parquet`` file; a folder of such files; a folder with ``queries.jsonl.gz``
                and ``outcomes.csv.gz``; a ``.jsonl`` or ``.jsonl.gz`` file, one query a line.
            cost: which column counts as cost. By default USD where anything costs any, else
                active parameters where they are known, else nothing.

        Raises:
            DataError: the file is missing, of another format, or holds a wrong value.
        """
        from routers.loading import load

        return load(Path(path), cost)

    def save(self, path: str | Path) -> Path:
        """Write the table as outcomes in Parquet, atomically, every cell a row."""
        from routers.loading import save

        return save(self, Path(path))

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def digest(self) -> str:
        """Identify the content: sha256 of every name, text and number."""
        texts = [self.queries, self.experts, self.category, self.ids, self.split, self.cost_unit]
        digest = hashlib.sha256(json.dumps(texts).encode())
        for array in (self.quality, self.cost):
            # NaN has many bit patterns; -0.0 equals 0.0.
            digest.update(np.where(np.isnan(array), np.nan, array + 0.0).tobytes())
        return digest.hexdigest()

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The labels in use, sorted."""
        return tuple(sorted(set(self.category) - {""}))

    @cached_property
    def labels(self) -> NDArray[np.intp]:
        """The row's index in ``categories``, -1 where it has none, (n,)."""
        index = {name: i for i, name in enumerate(self.categories)}
        return np.array([index.get(name, -1) for name in self.category], dtype=np.intp)

    @cached_property
    def alike(self) -> NDArray[np.integer[Any]]:
        """A number (n,) that is the same for queries that are equal or nearly so."""
        from routers.splits import groups

        return groups(self.queries)

    def select(self, rows: Rows) -> Self:
        """Return some rows, by index or by mask."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.empty(0, np.intp)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in index)

        return self._sharing(
            index,
            queries=pick(self.queries),
            quality=self.quality[index],
            cost=self.cost[index],
            category=pick(self.category),
            ids=pick(self.ids),
            split=pick(self.split),
        )

    def with_category(self, labels: Sequence[str]) -> Self:
        """Return the same outcomes under other labels."""
        return self._sharing(slice(None), category=tuple(labels))

    def only(self, experts: Sequence[str]) -> Self:
        """Return the columns of these experts, in this order.

        Raises:
            DataError: one of them is not there.
        """
        for name in experts:
            if name not in self.experts:
                listed = ", ".join(self.experts)
                hint = nearest(name, self.experts)
                raise DataError(f"outcomes: expert {name!r} is not one of {listed}{hint}")
        index = [self.experts.index(name) for name in experts]
        return self._sharing(
            slice(None),
            experts=tuple(experts),
            quality=self.quality[:, index],
            cost=self.cost[:, index],
        )

    def columns(self, experts: Sequence[str]) -> FloatArray:
        """Return the quality (n, k) of these experts; NaN where one of them is not there."""
        unknown = np.full(len(self), np.nan)
        column = {name: self.quality[:, i] for i, name in enumerate(self.experts)}
        return (
            np.array([column.get(name, unknown) for name in experts])
            .reshape(len(experts), len(self))
            .T
        )

    def without(self, expert: str) -> Self:
        """Return the columns of all other experts."""
        self.only([expert])  # raises where it is not there
        return self.only([name for name in self.experts if name != expert])

    def require_outcomes(self) -> None:
        """Refuse a table that nothing can be learned from.

        Raises:
            DataError: it has no query, no expert, or no graded cell.
        """
        if not self.queries or not self.experts:
            what = "queries" if not self.queries else "experts"
            raise DataError(f"outcomes: there are no {what}; collect some outcomes first")
        if np.isnan(self.quality).all():
            raise DataError("outcomes: every quality is missing; grade at least some answers")

    def _sharing(self, rows: Any, **changes: Any) -> Self:
        """Return a changed copy of these rows that need not search for queries alike again."""
        changed = replace(self, **changes)
        if "alike" in self.__dict__:
            changed.__dict__["alike"] = self.alike[rows]
        return changed

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_shapes(self, n: int, m: int) -> None:
        for name in ("quality", "cost"):
            if (shape := getattr(self, name).shape) != (n, m):
                raise DataError(
                    f"{name}: shape {shape} does not fit {n} queries and {m} experts; "
                    f"give one row per query and one column per expert, {(n, m)}"
                )
        for name in ("category", "ids", "split"):
            if (length := len(getattr(self, name))) != n:
                raise DataError(f"{name}: has {length} entries for {n} queries; give one each")

    def _check_names(self) -> None:
        for what, names in (("experts", self.experts), ("ids", self.ids)):
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise DataError(f"{what}: {twice!r} comes twice; every name must be unique")
        for row, (name, query) in enumerate(zip(self.ids, self.queries, strict=True)):
            if not query.strip():
                raise DataError(
                    f"queries: row {row} ({name!r}) is empty; remove it or write a text"
                )
        if unknown := set(self.split) - set(SPLITS):
            bad = min(unknown)
            raise DataError(f"split: {bad!r} is not one of train, val, test{nearest(bad, SPLITS)}")

    def _check_range(self, name: str, is_bad: NDArray[np.bool_], rule: str) -> None:
        if not is_bad.any():
            return
        row, column = np.argwhere(is_bad)[0]
        raise DataError(
            f"{name}: row {row} (query {self.ids[row]!r}), expert {self.experts[column]!r}: "
            f"{getattr(self, name)[row, column]:g} is out of range; {rule}, or NaN where unknown"
        )


def _frozen_array(values: FloatArray, name: str) -> FloatArray:
    """Copy to float64 that nobody can write to."""
    try:
        array: FloatArray = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: is not an array of numbers ({error})") from error
    array.setflags(write=False)
    return array
