"""Ways to decide whether to retrieve, all with one interface, the gate's among them.

A policy says for every query how often it takes each arm of an expert: a row (1 + s,) of shares
that sum to 1, arm 0 is without passages. A gate or threshold takes one arm; chance takes several,
which is followed exactly, without drawing.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np

from experts_registry.errors import DataError
from experts_registry.types import FloatArray
from routers.draft import SIGNALS
from routers.gates.data import GateData
from routers.gates.search import SEARCH

__all__ = [
    "Always",
    "CategoryMajority",
    "Never",
    "Oracle",
    "RandomAtRate",
    "RetrievalPolicy",
    "SkrKnn",
    "Threshold",
    "utilities",
]


class RetrievalPolicy(Protocol):
    """Decides whether an expert is given passages, and of which store."""

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Learn from outcomes.

        Args:
            data: of the training queries.
            x: (n, d) embeddings of them.
            expert: column of the expert.
            price: (s,) of retrieving, in quality.
        """
        ...

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Return how often each arm is taken, (n, 1 + s)."""
        ...


def utilities(data: GateData, expert: int, price: FloatArray) -> FloatArray:
    """Return quality less price of each arm (n, 1 + s); NaN where it was not graded."""
    utility: FloatArray = data.quality[:, expert] - np.append(0.0, price)
    return utility


@dataclass(frozen=True)
class Never:
    """Never retrieve."""

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Learn nothing."""
        return self

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Take arm 0."""
        return _only(np.zeros(len(data), dtype=np.intp), data)


@dataclass(frozen=True)
class Always:
    """Always retrieve, from the store that was best in training."""

    store: int = 0

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Choose the store."""
        return type(self)(_best_store(data, expert, price))

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Take that store's arm."""
        return _only(np.full(len(data), 1 + self.store), data)


@dataclass(frozen=True)
class RandomAtRate:
    """Retrieve from the best store for a share of the queries, whatever they ask."""

    rate: float
    store: int = 0

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Choose the store."""
        return type(self)(self.rate, _best_store(data, expert, price))

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Take either arm so often."""
        never, always = Never().shares(data, x, expert), Always(self.store).shares(data, x, expert)
        return (1 - self.rate) * never + self.rate * always


@dataclass(frozen=True)
class CategoryMajority:
    """The arm that was best on average on the query's category; needs to know the category."""

    best: tuple[tuple[str, int], ...] = ()

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Choose an arm for each category, and one for all others."""
        utility, label = utilities(data, expert, price), np.array(data.category)
        found = {"": _best_arm(utility)}
        found |= {name: _best_arm(utility[label == name]) for name in sorted(set(data.category))}
        return type(self)(tuple(found.items()))

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Look the category up."""
        best = dict(self.best)
        return _only(np.array([best.get(name, best[""]) for name in data.category]), data)


@dataclass(frozen=True)
class Threshold:
    """Retrieve where one number is above, or below, a threshold that was best in training.

    Mallen et al., "When Not to Trust Language Models", https://arxiv.org/abs/2212.10511, do so
    with the popularity of what is asked about; here it is the similarity of the best passage, or
    the mean log-probability of a draft. Where the number is not known, nothing is retrieved.
    """

    signal: Literal["similarity", "draft"] = "similarity"
    store: int = 0
    least: float = -np.inf
    sign: float = 1.0

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Try a threshold between any two neighbours, in both directions."""
        store = _best_store(data, expert, price)
        utility = utilities(data, expert, price)
        gain = np.nan_to_num(utility[:, 1 + store] - utility[:, 0])
        best = (-np.inf, np.inf, 1.0)
        for sign in (1.0, -1.0):
            value = sign * type(self)(self.signal, store)._values(data, expert)
            known = ~np.isnan(value)
            order = np.argsort(-value[known], kind="stable")
            ordered, total = value[known][order], np.append(0, np.cumsum(gain[known][order]))
            for count in np.argsort(-total, kind="stable"):
                # Equal values go together.
                if 0 < count < len(ordered) and ordered[count] == ordered[count - 1]:
                    continue
                edge = _between(ordered, int(count))
                best = max(best, (float(total[count]), edge, sign), key=lambda found: found[0])
                break
        return type(self)(self.signal, store, best[1], best[2])

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Compare."""
        retrieves = self.sign * self._values(data, expert) >= self.least  # NaN is never
        return _only(np.where(retrieves, 1 + self.store, 0), data)

    def _values(self, data: GateData, expert: int) -> FloatArray:
        if self.signal == "draft":
            return data.draft[:, expert, SIGNALS.index("mean_logprob")]
        return data.search[:, self.store, SEARCH.index("top")]


@dataclass(frozen=True, eq=False)
class SkrKnn:
    """Ask the nearest solved questions (SKR-kNN).

    Wang et al., "Self-Knowledge Guided Retrieval Augmentation for Large Language Models",
    https://arxiv.org/abs/2310.05002: of the n training questions, those on which retrieval was
    better or worse vote, the k nearest of them; the class that is more common in training wins
    where its votes lead by at least int((n_more - n_less) k / n).
    """

    neighbors: int = 7
    store: int = 0
    x: FloatArray | None = None
    helps: FloatArray | None = None  # (t,) 1 where retrieval was better, 0 where it was worse
    solved: int = 1

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Keep the questions on which retrieval made a difference."""
        store = _best_store(data, expert, price)
        difference = data.quality[:, expert, 1 + store] - data.quality[:, expert, 0]
        told = ~np.isnan(difference) & (difference != 0)
        if not told.any():
            raise DataError("outcomes: retrieval never made a difference; collect more queries")
        helps = (difference[told] > 0).astype(float)
        return type(self)(self.neighbors, store, x[told], helps, len(data))

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Count votes."""
        if self.x is None or self.helps is None:
            raise DataError("SKR-kNN: is not fitted; call fit first")
        k = min(self.neighbors, len(self.x))
        nearest = np.argsort(-(x @ self.x.T), axis=1, kind="stable")[:, :k]
        lead = 2 * self.helps[nearest].sum(axis=1) - k  # of better over worse
        more = 2 * self.helps.sum() - len(self.helps)
        surplus = int(abs(more) * k / self.solved)
        retrieves = lead >= surplus if more >= 0 else ~(-lead >= surplus)
        return _only(np.where(retrieves, 1 + self.store, 0), data)


@dataclass(frozen=True, eq=False)
class Oracle:
    """The best arm of every query, which nobody can know."""

    price: FloatArray | None = None

    def fit(self, data: GateData, x: FloatArray, expert: int, price: FloatArray) -> Self:
        """Keep the price."""
        return type(self)(price)

    def shares(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Look at the outcomes; without passages where it makes no difference."""
        price = np.zeros(len(data.stores)) if self.price is None else self.price
        utility = utilities(data, expert, price)
        return _only(np.where(np.isnan(utility), -np.inf, utility).argmax(axis=1), data)


def _between(ordered: FloatArray, count: int) -> float:
    """Return a threshold that the first ``count`` of values in falling order reach."""
    if count == 0:
        return np.inf
    return float(ordered[-1] if count == len(ordered) else ordered[count - 1 : count + 1].mean())


def _only(arm: np.ndarray, data: GateData) -> FloatArray:
    shares: FloatArray = np.eye(1 + len(data.stores))[arm]
    return shares


def _best_arm(utility: FloatArray) -> int:
    known = ~np.isnan(utility)
    mean = np.where(known, utility, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return int(np.argmax(np.where(known.any(axis=0), mean, -np.inf)))


def _best_store(data: GateData, expert: int, price: FloatArray) -> int:
    return _best_arm(utilities(data, expert, price)[:, 1:])
