"""One linear model per expert on the embedding and the text's features: ridge or logistic.

Ridge is the baseline that few learned routers beat (Li, "Rethinking Predictive Modeling for LLM
Routing", https://arxiv.org/abs/2505.12601, and our own tables). The penalty is chosen by cross-
validation on what routing is about: the differences between experts on one query.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from experts_registry.errors import OptionError, nearest
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.bounding import bounded
from routers.data import RoutingDataset
from routers.logistic import fit_logistic
from routers.ridge import Ridge, fit_leverage, fit_ridge, leverage, ridge_path
from routers.splits import folds

__all__ = ["LinearRouter", "centred"]

Link = Literal["ridge", "logistic"]
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_LOGISTIC = 0.1  # a logit changes four times as fast as a probability: that much less penalty
_FOLDS = 4
_PSEUDO_ANSWERS = 10.0


@dataclass(kw_only=True)
class LinearRouter(Router):
    """Predict each expert's quality linearly.

    Args:
        link: ``ridge``, least squares on the quality; ``logistic``, on its log-odds.
        penalty: in queries; by default chosen by cross-validation.
        features: read the text's features beside the embedding.
    """

    name: ClassVar[str] = "linear"

    link: Link = "ridge"
    penalty: float | None = None
    features: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.link not in get_args(Link):
            known = get_args(Link)
            raise OptionError(
                f"link: {self.link!r} is not one of {', '.join(known)}{nearest(self.link, known)}"
            )
        if self.penalty is not None and not 0 < self.penalty < np.inf:
            raise OptionError(f"penalty: {self.penalty!r} is not a number above 0")

    @property
    def reads_features(self) -> bool:
        """Whether x has the text's features as last columns."""
        return self.features

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        penalty = self.penalty or _choose(x, data)
        self.lineage_["penalty"] = penalty
        ridge = fit_ridge(x, data.quality, penalty)
        known = ~np.isnan(data.quality)
        left = np.where(known, data.quality - ridge(x), 0)
        noise = ((left**2).sum(axis=0) + 0.25) / (known.sum(axis=0) + 1)  # (m,)
        found = (
            ridge if self.link == "ridge" else fit_logistic(x, data.quality, _LOGISTIC * penalty)
        )
        found = _shrunken(found, known.sum(axis=0))
        return {
            "weight": found.weight,
            "intercept": found.intercept,
            "noise": noise,
            "count": known.sum(axis=0),
            **fit_leverage(x, penalty),
        }

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        value = x @ state["weight"] + state["intercept"]
        if self.link == "logistic":
            probability: FloatArray = np.exp(-np.logaddexp(0, -value))
            return probability
        return bounded(value)

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return sqrt(noise_e (1 / n_e + z' (Z'Z + alpha I)^-1 z))."""
        return np.sqrt(state["noise"] * (1 / np.maximum(state["count"], 1) + leverage(x, state)))


def centred(values: FloatArray, known: FloatArray) -> FloatArray:
    """Take the mean of the known cells from each row (n, m); 0 where a cell is unknown.

    What all experts share on a query makes no difference to whom to ask.
    """
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, values, 0).sum(axis=1, keepdims=True) / count
    return np.where(known, values - mean, 0)


def _shrunken(found: Ridge, count: FloatArray) -> Ridge:
    """Pull an expert of few outcomes (m,) to the mean expert: one lucky answer proves little."""
    share = count / count.sum()
    own = count / (count + _PSEUDO_ANSWERS)
    weight = own * found.weight + (1 - own) * (found.weight @ share)[:, None]
    intercept = own * found.intercept + (1 - own) * float(found.intercept @ share)
    return Ridge(weight, intercept)


def _choose(x: FloatArray, data: RoutingDataset) -> float:
    """Return the penalty whose held-out differences between experts are the least wrong.

    Of the penalties within one standard error of the best the largest: what cannot be told from
    luck is not followed.
    """
    fold, known = folds(data, _FOLDS), ~np.isnan(data.quality)
    wrong = np.zeros((len(PENALTIES), len(data)))
    for f in range(_FOLDS):
        train, held = fold != f, fold == f
        if not known[train].any() or not held.any():
            return PENALTIES[-1]
        path: list[Ridge] = ridge_path(x[train], data.quality[train], list(PENALTIES))
        for row, ridge in zip(wrong, path, strict=True):
            gap = centred(data.quality[held] - ridge(x[held]), known[held])
            row[held] = (gap**2).sum(axis=1)
    best = int(wrong.mean(axis=1).argmin())
    excess = wrong - wrong[best]
    error = excess.std(axis=1) / np.sqrt(len(data))
    return PENALTIES[int(np.flatnonzero(excess.mean(axis=1) <= error)[-1])]
