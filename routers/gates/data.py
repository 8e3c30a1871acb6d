"""What a gate learns from: outcomes of experts without passages and with those of each store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import DataError
from experts_registry.types import FloatArray
from routers.arms import Arm
from routers.data import RoutingDataset
from routers.draft import SIGNALS
from routers.gates.search import DEEPEST, SEARCH, search_features
from routers.outcomes import read_outcomes

__all__ = ["GateData"]

Rows = Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]
_PER_QUERY = ("queries", "ids", "category", "split")


@dataclass(frozen=True, kw_only=True, eq=False)
class GateData:
    """Outcomes of n queries with m experts, each without passages and with those of s stores.

    The last axis of ``quality``, ``usd`` and ``seconds`` counts the arms of an expert: 0 is
    without passages, 1 + i with those of ``stores[i]``. NaN is unknown everywhere.

    Args:
        queries: (n) texts.
        ids: (n) their names.
        category: (n) labels, or empty strings.
        split: (n) ``train``, ``val``, ``test`` or an empty string.
        experts: (m) names.
        stores: (s) names.
        quality: (n, m, 1 + s) in [0, 1].
        usd: (n, m, 1 + s) price of the answer.
        seconds: (n, m, 1 + s) until it was there.
        search: (n, s, f) what a search of the store says, see `routers.gates.search`.
        draft: (n, m, g) how sure the expert is of its answer, see `routers.draft`.
        passages: most passages that a query was given.
        depth: similarities of a search that ``search`` is about.
    """

    queries: tuple[str, ...]
    ids: tuple[str, ...]
    category: tuple[str, ...]
    split: tuple[str, ...]
    experts: tuple[str, ...]
    stores: tuple[str, ...]
    quality: FloatArray
    usd: FloatArray
    seconds: FloatArray
    search: FloatArray
    draft: FloatArray
    passages: int = 1
    depth: int = DEEPEST

    @classmethod
    def load(cls, path: str | Path) -> "GateData":
        """Read outcomes that ``collect --with-and-without`` made: a file, or a folder of such.

        Raises:
            DataError: it is missing, or no expert was asked both without and with passages.
        """
        path = Path(path)
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        rows = [row for file in files for row in read_outcomes(file)]
        return cls.of(rows, where=str(path))

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]], *, where: str = "outcomes") -> "GateData":
        """Lay rows of outcomes out by query and arm; experts asked in one way only are left out.

        Raises:
            DataError: no expert was asked both without and with passages.
        """
        rows = list(rows)
        graded = {Arm.of(row["expert"]) for row in rows if row["quality"] is not None}
        experts = sorted(
            {arm.expert for arm in graded if arm.store} & {a.expert for a in graded if not a.store}
        )
        stores = sorted({a.store for a in graded if a.store and a.expert in experts})
        if not experts:
            raise DataError(
                f"{where}: no expert was asked both without and with passages; "
                "run 'expert-composer collect --with-and-without STORE'"
            )
        return _laid_out([row for row in rows if Arm.of(row["expert"]).expert in experts],
                         tuple(experts), tuple(stores))  # fmt: skip

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def table(self) -> RoutingDataset:
        """The same outcomes, every arm a column."""
        n, m, arms = self.quality.shape
        names = [str(Arm(e, s)) for e in self.experts for s in (None, *self.stores)]
        return RoutingDataset(
            queries=self.queries,
            experts=tuple(names),
            quality=self.quality.reshape(n, m * arms),
            category=self.category,
            ids=self.ids,
            split=self.split,
        )

    @property
    def digest(self) -> str:
        """Identify the outcomes."""
        return self.table.digest

    @property
    def marks(self) -> list[str]:
        """By which queries are known again, without their texts."""
        return [sha256(q.encode("utf-8", "replace")).hexdigest()[:16] for q in self.queries]

    def select(self, rows: Rows) -> "GateData":
        """Return some rows, by index or by mask."""
        index = np.arange(len(self))[np.asarray(rows)]
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _PER_QUERY:
            values[name] = tuple(values[name][i] for i in index)
        for name in ("quality", "usd", "seconds", "search", "draft"):
            values[name] = values[name][index]
        return GateData(**values)


def _laid_out(
    rows: list[dict[str, Any]], experts: tuple[str, ...], stores: tuple[str, ...]
) -> GateData:
    index = {name: i for i, name in enumerate(dict.fromkeys(row["query_id"] for row in rows))}
    texts: dict[str, dict[str, Any]] = {}
    n, m, s = len(index), len(experts), len(stores)
    numbers = {name: np.full((n, m, 1 + s), np.nan) for name in ("quality", "cost_usd", "seconds")}
    search = np.full((n, s, len(SEARCH)), np.nan)
    draft = np.full((n, m, len(SIGNALS)), np.nan)
    passages = max([1, *(len(row.get("passages") or ()) for row in rows)])
    lengths = [len(found) for row in rows if (found := row.get("similarity"))]
    depth = min([DEEPEST, *lengths])
    for row in rows:
        i, arm = index[row["query_id"]], Arm.of(row["expert"])
        if arm.store is not None and arm.store not in stores:
            continue
        texts.setdefault(row["query_id"], row)
        e, a = experts.index(arm.expert), 0 if arm.store is None else 1 + stores.index(arm.store)
        for name, array in numbers.items():
            if (value := row.get(name)) is not None:
                array[i, e, a] = value
        if arm.store is None and (signals := row.get("draft")):
            draft[i, e] = [signals[name] for name in SIGNALS]
        if arm.store is not None and row.get("similarity") is not None:
            search[i, a - 1] = search_features(row["similarity"], row.get("margin"), depth)
    kept = [texts[name] for name in index]
    return GateData(
        queries=tuple(row["query"] for row in kept),
        ids=tuple(index),
        category=tuple(row.get("category") or "" for row in kept),
        split=tuple(row.get("split") or "" for row in kept),
        experts=experts,
        stores=stores,
        quality=numbers["quality"],
        usd=numbers["cost_usd"],
        seconds=numbers["seconds"],
        search=search,
        draft=draft,
        passages=passages,
        depth=depth,
    )
