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
    "category_oracle",
    "category_table",
    "cheapest_correct_oracle",
    "choose",
    "forecast",
    "macro_mean",
    "mean_cost",
    "oracle",
    "prompt_length",
    "random_expectation",
    "worth",
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
    return _macro(data.quality, data.labels)


def _macro(values: FloatArray, labels: IntArray) -> FloatArray:
    return _column_means(np.array([_column_means(values[labels == c]) for c in np.unique(labels)]))


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


def best_single(train: RoutingDataset, test: RoutingDataset, *, cost_weight: float = 0.0) -> Policy:
    """Always ask the expert that was best on the training queries.

    Over the cost weights these are the corners of the hull of single experts: RouterBench's zero
    router (Hu et al., https://arxiv.org/abs/2403.12031).
    """
    return choose("best single", test, np.full(len(test), _best(train, worth(train, cost_weight))))


def category_table(
    train: RoutingDataset, test: RoutingDataset, *, cost_weight: float = 0.0
) -> Policy:
    """Ask the expert that was best on the query's true category, which no router is told."""
    return _by_category("category table", train, worth(train, cost_weight), test)


def category_oracle(test: RoutingDataset, *, cost_weight: float = 0.0) -> Policy:
    """Ask the expert that is best on the category of the test queries: a bound for any table."""
    return _by_category("category oracle", test, worth(test, cost_weight), test)


def prompt_length(
    train: RoutingDataset, test: RoutingDataset, *, cost_weight: float = 0.0
) -> Policy:
    """Ask one expert for short queries and one for long ones; all three chosen on train."""
    value, length = worth(train, cost_weight), _lengths(train)
    order = np.argsort(length, kind="stable")
    weight = _macro_weights(train)[order, None]
    known = ~np.isnan(value[order])
    share = np.cumsum(np.vstack([np.zeros(known.shape[1]), weight * known]), axis=0)  # (n + 1, m)
    gains = weight * np.where(known, value[order], 0)
    total = np.cumsum(np.vstack([np.zeros(known.shape[1]), gains]), axis=0)
    mass = np.append(0, np.cumsum(weight))
    limits = [np.inf, *np.unique(np.quantile(length, np.linspace(0.02, 0.98, _LENGTHS)))]
    cut = np.searchsorted(length[order], limits, side="right")  # (limits,) queries not above
    low, gain = _best_side(total[cut], share[cut], mass[cut])
    high, more = _best_side(total[-1] - total[cut], share[-1] - share[cut], mass[-1] - mass[cut])
    best = int(np.argmax(gain + more))
    choice = np.where(_lengths(test) > limits[best], high[best], low[best])
    return choose("prompt length", test, choice)


def oracle(test: RoutingDataset, *, cost_weight: float = 0.0) -> Policy:
    """Ask whoever does best on each query: an upper bound, inflated by lucky guesses."""
    value = np.nan_to_num(worth(test, cost_weight), nan=-np.inf)
    return choose("oracle", test, np.argmax(value, axis=1))


def cheapest_correct_oracle(test: RoutingDataset, *, cost_weight: float = 0.0) -> Policy:
    """Ask the cheapest of those who do best on each query."""
    value = np.nan_to_num(worth(test, cost_weight), nan=-np.inf)
    is_best = value >= value.max(axis=1, keepdims=True)
    price = np.where(is_best, np.nan_to_num(test.cost, nan=np.finfo(float).max), np.inf)
    return choose("cheapest correct oracle", test, np.argmin(price, axis=1))


def forecast(
    name: str, train: RoutingDataset, test: RoutingDataset, quality: FloatArray, cost_weight: float
) -> Policy:
    """Follow predicted qualities (n, m), and each expert's mean cost on train."""
    cost = mean_cost(train)
    utility = quality - cost_weight * np.nan_to_num(cost, nan=_scale(cost)) / _scale(cost)
    return choose(name, test, np.argmax(utility, axis=1))


def mean_cost(data: RoutingDataset) -> FloatArray:
    """Return each expert's mean cost (m,); NaN where it is unknown."""
    return _column_means(data.cost)


def worth(data: RoutingDataset, cost_weight: float) -> FloatArray:
    """Return quality less weighted cost (n, m); an unknown cost counts as the dearest.

    A weight of 1 gives up a quality of 1 for the mean cost of the dearest expert.
    """
    if cost_weight == 0:
        return data.quality
    scale = _scale(mean_cost(data))
    result: FloatArray = data.quality - cost_weight * np.nan_to_num(data.cost, nan=scale) / scale
    return result


def _scale(cost: FloatArray) -> float:
    known = cost[~np.isnan(cost)]
    return max(float(known.max()), 1e-12) if len(known) else 1.0


def _by_category(
    name: str, train: RoutingDataset, value: FloatArray, test: RoutingDataset
) -> Policy:
    general, table = _best(train, value), {}
    for c, category in enumerate(train.categories):
        mean = _column_means(value[train.labels == c])
        table[category] = general if np.isnan(mean).all() else int(np.nanargmax(mean))
    choice = np.array([table.get(category, general) for category in test.category], dtype=np.intp)
    return choose(name, test, choice)


def _best(train: RoutingDataset, value: FloatArray) -> int:
    """Return who has the best mean value (n, m); ties go to the cheaper one, then to the first."""
    mean = np.nan_to_num(_macro(value, train.labels), nan=-np.inf)
    cost = np.nan_to_num(mean_cost(train), nan=np.inf)
    return int(np.lexsort((np.arange(len(mean)), cost, -mean))[0])


def _lengths(data: RoutingDataset) -> IntArray:
    return np.array([len(query) for query in data.queries])


def _macro_weights(data: RoutingDataset) -> FloatArray:
    """Weigh rows so that every category counts the same, (n,)."""
    _, label, count = np.unique(data.labels, return_inverse=True, return_counts=True)
    weight: FloatArray = 1.0 / (count[label] * len(count))
    return weight


def _best_side(
    total: FloatArray, share: FloatArray, mass: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return the best expert on one side of each limit, and what it adds to the mean quality.

    Args:
        total: (limits, m) weighted sums of quality.
        share: (limits, m) weight of the graded queries.
        mass: (limits,) weight of all queries.
    """
    mean = np.where(share > 1e-12, total / np.maximum(share, 1e-12), -np.inf)
    expert = np.argmax(mean, axis=1)
    best = mean[np.arange(len(mean)), expert]
    gain: FloatArray = np.where(np.isfinite(best), best, 0.0) * mass
    return expert, gain
