"""Which category a query belongs to, and how sure that is.

Two classifiers: multinomial logistic regression, which also reads the features of the text, and k
nearest neighbours.
Both give logits; a temperature fitted on held-out rows turns these into honest probabilities
(Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.base import State
from routers.features import without_features
from routers.logistic import fit_softmax

__all__ = ["Classifier", "Signals", "fit_classifier", "fit_temperature", "logits", "signals"]
__all__ += ["softmax"]

IntArray = NDArray[np.integer[Any]]
Classifier = Literal["logistic", "knn"]
NEIGHBOURS, SHARPNESS, LAPLACE = 15, 0.05, 0.1
PENALTY, STEPS = 0.1, 40  # of the logistic regression; more steps change no decision
NEAREST = 5  # training queries whose mean distance says how strange a query is


@dataclass(frozen=True, eq=False)
class Signals:
    """Three signs of doubt, (n,) each.

    Args:
        entropy: of the categories, 0 when one is certain, 1 when all are alike.
        margin: probability of the first less that of the second.
        distance: 1 less the mean cosine of the nearest training queries.
    """

    entropy: FloatArray
    margin: FloatArray
    distance: FloatArray


def fit_classifier(kind: Classifier, x: FloatArray, y: IntArray, categories: int) -> State:
    """Learn from rows x (n, d + f) of categories y (n,), every one of which occurs."""
    state: dict[str, FloatArray] = {
        "reference": without_features(x),
        "labels": y.astype(np.float32),
    }
    if kind == "knn":
        return state
    if categories == 1:
        return state | {"weight": np.zeros((x.shape[1], 1)), "bias": np.zeros(1)}
    # Every category counts the same, however many queries it has.
    balanced = len(y) / (categories * np.bincount(y, minlength=categories))
    found = fit_softmax(x, np.eye(categories)[y], PENALTY, weight=balanced[y], steps=STEPS)
    return state | {"weight": found.weight, "bias": found.intercept}


def logits(kind: Classifier, x: FloatArray, state: State, categories: int) -> FloatArray:
    """Return the unnormalised log-probabilities (n, c)."""
    if kind == "logistic":
        return np.asarray(x @ state["weight"] + state["bias"])
    similarity = without_features(x) @ state["reference"].T  # (n, train)
    k = min(NEIGHBOURS, similarity.shape[1])
    near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    close = np.take_along_axis(similarity, near, axis=1)
    weight = np.exp((close - close.max(axis=1, keepdims=True)) / SHARPNESS)
    votes = (state["labels"][near][:, :, None] == np.arange(categories)) * weight[:, :, None]
    counted: FloatArray = np.log(votes.sum(axis=1) + LAPLACE)
    return counted


def softmax(values: FloatArray) -> FloatArray:
    """Return rows that are positive and add up to one."""
    exponent = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities: FloatArray = exponent / exponent.sum(axis=1, keepdims=True)
    return probabilities


def fit_temperature(folds: Sequence[tuple[FloatArray, IntArray]]) -> float:
    """Return what to divide logits by so that held-out rows are likeliest; 1 without any.

    Args:
        folds: held-out logits (n, c) and true categories (n,), one pair per fold.
    """
    from scipy.optimize import minimize_scalar

    if not any(len(y) for _, y in folds):
        return 1.0

    def surprise(log_temperature: float) -> float:
        return -sum(
            float(np.log(softmax(z / np.exp(log_temperature))[np.arange(len(y)), y] + 1e-12).sum())
            for z, y in folds
        )

    found = minimize_scalar(surprise, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def signals(probabilities: FloatArray, x: FloatArray, reference: FloatArray) -> Signals:
    """Return the signs of doubt of rows x (n, d) against training rows (train, d)."""
    categories = probabilities.shape[1]
    surprise = -(probabilities * np.log(probabilities + 1e-12)).sum(axis=1)
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - (ordered[:, -2] if categories > 1 else 0.0)
    similarity = x @ reference.T  # (n, train)
    k = min(NEAREST, similarity.shape[1])
    nearest = np.partition(similarity, -k, axis=1)[:, -k:]
    return Signals(
        entropy=surprise / np.log(max(categories, 2)),
        margin=margin,
        distance=1 - nearest.mean(axis=1),
    )
