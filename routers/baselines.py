"""What every router is compared with: constant and random choices, tables, rules, oracles."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.data import RoutingDataset

__all__ = [
    "BestOnAverage",
    "Policy",
    "Random",
    "best_single",
    "category_table",
    "cheapest_correct_oracle",
    "choose",
    "macro_mean",
    "oracle",
    "prompt_length",
    "random_expectation",
]

IntArray = NDArray[np.integer[Any]]
_LENGTHS = 32  # thresholds tried by the length rule


@dataclass(kw_only=True)
class BestOnAverage(Router):
    """Ask the expert with the best mean quality, every category counting the same."""

    name: ClassVar[str] = "best"

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        return {"mean": macro_mean(data)}

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return np.broadcast_to(state["mean"], (len(x), len(self.experts_)))


@dataclass(kw_only=True)
class Random(Router):
    """Ask any expert: the same query and seed give the same one.

    Quality is predicted honestly, as each expert's mean; only the ranking is random.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        # Keys from names, not from positions, so that other experts change nothing. 23 bits stay
        # exact in float32.
        digests = [hashlib.sha256(f"{self.seed}:{name}".encode()).digest() for name in data.experts]
        return {"key": np.array([int.from_bytes(d[:4], "big") >> 9 for d in digests])}

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return np.broadcast_to(state["prior.mean"], (len(x), len(self.experts_)))

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        """Hash the coarse embedding with each expert's key to [0, 1), (n, m)."""
        # Coarse, because encoders differ in the last bits between batches.
        coarse = np.round(x * 16).astype(np.int64).view(np.uint64)
        odd = np.random.default_rng(self.seed).integers(2**63, size=x.shape[1], dtype=np.uint64)
        mixed = _mix((coarse * (2 * odd + 1)).sum(axis=1, dtype=np.uint64)[:, None])
        mixed = _mix(mixed + state["key"].astype(np.uint64))
        return (mixed >> np.uint64(11)) / 2.0**53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter the bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def macro_mean(data: RoutingDataset) -> FloatArray:
    """Return each expert's mean over the categories' means (m,); NaN where nothing is known.

    Queries without a category count as one more category.
    """
    means = [_column_means(data.quality[data.labels == c]) for c in np.unique(data.labels)]
    return _column_means(np.array(means))


def _column_means(values: FloatArray) -> FloatArray:
    """Return the means of the known values of each column; NaN where there is none."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    mean: FloatArray = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return mean


# -- policies on a table of outcomes -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """What following a rule would have given on each query.

    Args:
        name: of the rule.
        quality: (n) quality reached.
        cost: (n) cost paid; NaN where unknown.
        choice: (n) the expert's column, or None where the rule is an expectation.
    """

    name: str
    quality: FloatArray
    cost: FloatArray
    choice: IntArray | None = None


def choose(name: str, data: RoutingDataset, choice: IntArray) -> Policy:
    """Follow one choice per query."""
    rows = np.arange(len(data))
    return Policy(
        name=name, quality=data.quality[rows, choice], cost=data.cost[rows, choice], choice=choice
    )


def random_expectation(test: RoutingDataset) -> Policy:
    """Return what a uniformly random choice gives on average: the row means, exactly."""
    return Policy(
        name="random", quality=_column_means(test.quality.T), cost=_column_means(test.cost.T)
    )


def best_single(train: RoutingDataset, test: RoutingDataset) -> Policy:
    """Always ask the expert that was best on the training queries."""
    return choose("best single", test, np.full(len(test), _best(train)))


def category_table(train: RoutingDataset, test: RoutingDataset) -> Policy:
    """Ask the expert that was best on the query's true category, which no router is told."""
    general = _best(train)
    table = {}
    for c, name in enumerate(train.categories):
        mean = _column_means(train.quality[train.labels == c])
        table[name] = general if np.isnan(mean).all() else int(np.nanargmax(mean))
    choice = np.array([table.get(name, general) for name in test.category], dtype=np.intp)
    return choose("category table", test, choice)


def prompt_length(train: RoutingDataset, test: RoutingDataset) -> Policy:
    """Ask one expert for short queries and one for long ones; all three chosen on train."""
    length, limit = _lengths(train), np.inf
    best = (-np.inf, np.inf, 0, 0)
    weight = _macro_weights(train)
    for limit in [np.inf, *np.unique(np.quantile(length, np.linspace(0.02, 0.98, _LENGTHS)))]:
        is_long = length > limit
        (low, gain), (high, more) = (_best_of(train, weight, side) for side in (~is_long, is_long))
        best = max(best, (gain + more, limit, low, high))
    _, limit, low, high = best
    return choose("prompt length", test, np.where(_lengths(test) > limit, high, low))


def oracle(test: RoutingDataset) -> Policy:
    """Ask whoever does best on each query: an upper bound, inflated by lucky guesses."""
    filled = np.where(np.isnan(test.quality), -1, test.quality)
    return choose("oracle", test, np.argmax(filled, axis=1))


def cheapest_correct_oracle(test: RoutingDataset) -> Policy:
    """Ask the cheapest of those who do best on each query."""
    filled = np.where(np.isnan(test.quality), -1, test.quality)
    is_best = filled >= filled.max(axis=1, keepdims=True)
    price = np.where(is_best, np.nan_to_num(test.cost, nan=np.finfo(float).max), np.inf)
    return choose("cheapest correct oracle", test, np.argmin(price, axis=1))


def _best(train: RoutingDataset) -> int:
    """Return the best expert on average; ties go to the cheaper one, then to the first."""
    mean = np.nan_to_num(macro_mean(train), nan=-1)
    cost = np.nan_to_num(_column_means(train.cost), nan=np.inf)
    return int(np.lexsort((np.arange(len(mean)), cost, -mean))[0])


def _lengths(data: RoutingDataset) -> IntArray:
    return np.array([len(query) for query in data.queries])


def _macro_weights(data: RoutingDataset) -> FloatArray:
    """Weigh rows so that every category counts the same, (n,)."""
    _, label, count = np.unique(data.labels, return_inverse=True, return_counts=True)
    weight: FloatArray = 1.0 / (count[label] * len(count))
    return weight


def _best_of(
    train: RoutingDataset, weight: FloatArray, rows: NDArray[np.bool_]
) -> tuple[int, float]:
    """Return the best expert of some rows, and what it adds to the weighted mean quality."""
    if not rows.any():
        return _best(train), 0.0
    known = ~np.isnan(train.quality[rows])
    share = (weight[rows, None] * known).sum(axis=0)
    total = (weight[rows, None] * np.where(known, train.quality[rows], 0)).sum(axis=0)
    mean = np.where(share > 0, total / np.maximum(share, 1e-300), 0)
    expert = int(np.argmax(mean))
    return expert, float(mean[expert] * weight[rows].sum())
