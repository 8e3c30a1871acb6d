"""Composition of Experts: embedding -> category -> expert.

Jain et al., "Composition of Experts: A Modular Compound AI System Leveraging Large Language
Models", https://arxiv.org/abs/2412.01868. A classifier gives the probabilities p_c of the
categories, a table the expected quality P_ce of every expert on each, and

    score_e(x) = sum_c p_c(x) P_ce

A doubtful query is one of no category in particular: all count the same there, so the best single
expert wins. At predict time no expert's score depends on another one; the table itself is fitted
jointly (an expert's gaps are filled from how hard the others found the category).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError, nearest
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.calibration import calibrate, doubts
from routers.classifier import Classifier, Signals, fit_classifier, logits, signals, softmax
from routers.data import RoutingDataset
from routers.features import without_features
from routers.mapping import Mapping as ExpertMapping
from routers.mapping import pareto, solve
from routers.splits import folds
from routers.table import fit_table, mean_cost
from routers.taxonomy import label, read_taxonomy

__all__ = ["Categorised", "CategoryRouter"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Categorised:
    """What the classifier makes of n queries.

    Args:
        probabilities: (n, c).
        signals: the signs of doubt; None where none is looked for.
        fallback: (n) whether any of them objects.
    """

    probabilities: FloatArray
    signals: Signals | None
    fallback: NDArray[np.bool_]

    @property
    def weights(self) -> FloatArray:
        """The share of each category in the answer (n, c): all alike for a doubtful query."""
        if self.signals is None:
            return self.probabilities
        even = 1 / self.probabilities.shape[1]
        return np.where(self.fallback[:, None], even, self.probabilities)

    @property
    def top(self) -> NDArray[np.intp]:
        """The row of the map that decides (n,): a category, or -1 for the general expert."""
        return np.where(self.fallback, -1, self.probabilities.argmax(axis=1))


@dataclass(kw_only=True)
class CategoryRouter(Router):
    """Ask the expert that is best on the query's category.

    Args:
        classifier: ``logistic`` or ``knn``.
        mode: ``soft`` weighs all categories by their probability; ``hard`` asks the expert that
            the likeliest category maps to, and the others only where that one is unavailable.
        budget: most that a query may cost on average, in the data's unit; implies ``hard``.
        shrinkage: pseudo-answers that pull a category's mean to the expert's overall one.
        risk: standard errors by which an expert's estimate is discounted before ranking.
        max_fallback: most of the queries of known categories that may go to the general expert.
        temperature: of the classifier's logits; by default fitted on held-out queries.
        categories: a YAML file ``{categories: {name: sentence}, pin: {name: expert}}``, or its
            content; without it the data's labels are used, and clusters where there are none.
        pin: category -> the expert that always serves it; adds to the file's.
    """

    name: ClassVar[str] = "category"

    classifier: Classifier = "logistic"
    mode: str = "soft"
    budget: float | None = None
    shrinkage: float = 20.0
    risk: float = 0.0
    max_fallback: float = 0.2
    temperature: float | None = None
    categories: str | Path | Mapping[str, Any] | None = None
    pin: Mapping[str, str] = field(default_factory=dict)

    # Quality, error, cost and utility of one prediction all ask for the categories of one x.
    _last: tuple[FloatArray, State, Categorised] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.categories = _content(self.categories)  # a saved router is JSON
        for name, value, known in (
            ("classifier", self.classifier, get_args(Classifier)),
            ("mode", self.mode, ("soft", "hard")),
        ):
            if value not in known:
                hint = nearest(str(value), known)
                raise OptionError(f"{name}: {value!r} is not one of {', '.join(known)}{hint}")
        for name, low, high in (
            ("budget", 0, np.inf),
            ("shrinkage", 0, np.inf),
            ("risk", 0, np.inf),
            ("max_fallback", 0, 1),
            ("temperature", 1e-3, 1e3),
        ):
            number = getattr(self, name)
            if number is not None and not low <= number <= high:
                raise OptionError(f"{name}: {number!r} is not in [{low}, {high}]")

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns: they tell many categories apart."""
        return True

    # -- fitting --------------------------------------------------------------------------------

    def _prepare(self, x: FloatArray, data: RoutingDataset) -> RoutingDataset:
        taxonomy = read_taxonomy(_content(self.categories))
        labels = label(x, data, taxonomy, self._encode)
        labelled = data.with_category(labels.names)
        pins = {**taxonomy.pin, **self.pin}
        _check_pins(pins, sorted({*labelled.categories, *taxonomy.sentences}), data.experts)
        if unseen := sorted(set(taxonomy.sentences) - set(labelled.categories)):
            logger.warning("no query has category %s; it cannot be chosen", ", ".join(unseen))
        self.lineage_["labels"] = {
            "source": labels.source,
            "adopted": labels.adopted,
            "unlabelled": labels.unlabelled,
            "unseen": unseen,
        }
        self.lineage_["pin"] = pins
        return labelled

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        c, known = len(data.categories), data.labels >= 0
        y = data.labels[known]
        trust = calibrate(
            self.classifier,
            x[known],
            data.quality[known],
            y,
            folds(data.select(known)),
            shrinkage=self.shrinkage,
            max_fallback=self.max_fallback,
            temperature=self.temperature,
        )
        self.lineage_["calibration"] = {
            "temperature": round(trust.temperature, 4),
            "fallback_known": round(trust.inside, 4),
            "fallback_hidden": None if np.isnan(trust.outside) else round(trust.outside, 4),
        }
        table = fit_table(data.quality, data.labels, c, shrinkage=self.shrinkage)
        state: dict[str, FloatArray] = {
            "quality": table.quality,
            "variance": table.variance,
            "lower": table.quality - self.risk * np.sqrt(table.variance),
            "cost": mean_cost(data.cost, data.labels, c),
            "share": np.bincount(y, minlength=c) / len(y),
            "temperature": np.array([trust.temperature]),
            "thresholds": trust.thresholds,
        }
        first = {"first": self._first(state, data)}
        learned = dict(fit_classifier(self.classifier, x[known], y, c))
        if self.classifier != "knn" and np.isinf(trust.thresholds).all():
            learned["reference"] = learned["reference"][
                :0
            ]  # nobody will look how near the training queries are
        return state | first | learned

    def _first(self, state: State, data: RoutingDataset) -> FloatArray:
        """Return which expert comes before all others (c + 1, m), the general row last."""
        c, m = state["lower"].shape
        first = np.zeros((c + 1, m))
        for name, expert in self.lineage_["pin"].items():
            if name in data.categories:
                first[data.categories.index(name), data.experts.index(expert)] = 1
        if self.mode == "soft" and self.budget is None:
            return first
        if self.budget is not None and np.isnan(data.cost).all():
            raise OptionError("budget: the outcomes hold no cost to keep it by; leave it out")
        pinned = first[:c].any(axis=1, keepdims=True)
        cost = _priced(state["cost"])
        scale = float(_priced(mean_cost(data.cost, np.zeros(len(data), dtype=np.intp), 1)).max())
        weight = self.cost_weight / max(scale, 1e-12)
        found = solve(
            state["lower"],
            cost,
            state["share"],
            budget=self.budget,
            cost_weight=weight,
            allowed=(first[:c] > 0) | ~pinned,
        )
        first[np.arange(c), found.choice] = 1
        general = state["lower"].mean(axis=0) - weight * cost.mean(axis=0)
        first[c, _within(general, cost.mean(axis=0), self.budget)] = 1
        self.lineage_["mapping"] = {"value": found.value, "cost": found.cost, "gap": found.gap}
        return first

    # -- predicting -----------------------------------------------------------------------------

    def categorise(self, x: FloatArray) -> Categorised:
        """Return the categories of embedded queries, and which of them are doubtful."""
        return self._categorise(self._columns(self._read(x)), self.state_)

    def shares(self, x: FloatArray, state: State) -> FloatArray:
        """Return the probabilities of the categories (n, c) by what was learned."""
        return self._categorise(x, state).probabilities

    def front(self) -> list[ExpertMapping]:
        """Return the category-to-expert maps that no other beats in quality and cost."""
        state, resolution = self.state_, 1 / 31
        quality, share = state["quality"], state["share"]
        return pareto(quality, _priced(state["cost"]), share, resolution=resolution)

    def _categorise(self, x: FloatArray, state: State) -> Categorised:
        last = self._last  # read once: another thread may replace it
        if last is not None and last[0] is x and last[1] is state:
            return last[2]
        values = logits(self.classifier, x, state, len(state["quality"]))
        probabilities = softmax(values / state["temperature"])
        if all(map(math.isinf, state["thresholds"].tolist())):  # nothing is ever doubtful
            result = Categorised(probabilities, None, np.zeros(len(x), dtype=bool))
        else:
            found = signals(probabilities, without_features(x), state["reference"])
            result = Categorised(probabilities, found, doubts(found, state["thresholds"]))
        self._last = (x, state, result)
        return result

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return self._categorise(x, state).weights @ state["quality"]

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error: that within categories, and from not knowing which it is."""
        weights = self._categorise(x, state).weights
        mean = weights @ state["quality"]
        square = weights @ (state["quality"] ** 2 + state["variance"])
        return np.sqrt(np.maximum(square - mean**2, 0))

    def _cost(self, x: FloatArray, state: State) -> FloatArray:
        return self._categorise(x, state).weights @ state["cost"]

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        found = self._categorise(x, state)
        first = state["first"][found.top]  # (n, m)
        # Where somebody comes first, the others step back by more than cost can make up.
        behind = first.any(axis=1, keepdims=True) * (1 - first)
        return found.weights @ state["lower"] - 10 * (1 + self.cost_weight) * behind

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        found = self._categorise(x, state)
        p = found.probabilities[0]
        order = np.argsort(-p, kind="stable")[:3].tolist()
        likely = f"category {self.categories_[order[0]]} ({p[order[0]]:.2f})"
        doubt = found.signals if found.fallback[0] else None
        why = _why(doubt, state["thresholds"]) if doubt else None
        value = state["lower"] + 10 * state["first"][:-1]
        value = value - self.cost_weight * _priced(state["cost"]) / state["prior.scale"]
        best = value.argmax(axis=1)
        return {
            "reason": f"general expert, {why}; nearest is {likely}" if why else likely,
            "category": self.categories_[order[0]],
            "probabilities": {self.categories_[c]: round(float(p[c]), 4) for c in order},
            "fallback": why,
            "map": {self.categories_[c]: self.experts_[best[c]] for c in order},
        }


def _content(categories: str | Path | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    return str(categories) if isinstance(categories, Path) else categories


def _check_pins(pins: Mapping[str, str], categories: Sequence[str], experts: Sequence[str]) -> None:
    for name, expert in pins.items():
        for what, value, known in (("category", name, categories), ("expert", expert, experts)):
            if value not in known:
                listed = ", ".join(known)
                raise OptionError(
                    f"pin: {what} {value!r} is not one of {listed}, which have outcomes"
                    f"{nearest(value, known)}"
                )


def _priced(cost: FloatArray) -> FloatArray:
    """Take an expert of unknown cost for as dear as the dearest."""
    if np.isnan(cost).all():
        return np.zeros(cost.shape)
    return np.nan_to_num(cost, nan=float(np.nanmax(cost)))


def _within(value: FloatArray, cost: FloatArray, budget: float | None) -> int:
    """Return the most valuable expert that costs no more than the budget, else the cheapest."""
    is_feasible = cost <= (np.inf if budget is None else budget)
    if not is_feasible.any():
        return int(np.argmin(cost))
    return int(np.lexsort((cost, -np.where(is_feasible, value, -np.inf)))[0])


def _why(found: Signals, thresholds: FloatArray) -> str:
    """Say which sign of doubt objected to the one query."""
    entropy, margin, distance = thresholds
    if found.distance[0] >= distance:
        return f"unlike the training queries (distance {found.distance[0]:.2f} >= {distance:.2f})"
    if found.margin[0] <= margin:
        return f"between categories (margin {found.margin[0]:.2f} <= {margin:.2f})"
    return f"of no clear category (entropy {found.entropy[0]:.2f} >= {entropy:.2f})"
