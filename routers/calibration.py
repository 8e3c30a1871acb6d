"""When to distrust the category classifier: rehearse on held-out queries, some of no category.

Each rehearsal hides a fifth of the queries and a fifth of the categories from the classifier. The
hidden queries of known categories say how sure it may be; those of hidden categories stand for
queries outside the taxonomy. A query is doubtful if any of the three signals says so, and then the
general expert is asked; the thresholds are those that reach the highest quality while at most
``max_fallback`` of the queries of known categories fall back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.classifier import (
    Classifier,
    Signals,
    fit_classifier,
    fit_temperature,
    logits,
    signals,
    softmax,
)
from routers.features import without_features
from routers.table import fit_table

__all__ = ["Calibration", "calibrate", "doubts"]

IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
FOLDS = 5
_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)  # of max_fallback, what one signal may reject
_NEVER = np.array([np.inf, -np.inf, np.inf])
_DEFAULT_MARGIN = 0.2  # where no category can be hidden
_SURE = 1e-6  # a query that is as sure as rounding can tell is never doubtful


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the rehearsals taught.

    Args:
        temperature: what logits are divided by.
        thresholds: (3,) of entropy, margin and distance.
        inside: share of queries of known categories that fall back.
        outside: share of queries of hidden categories that fall back; NaN without any.
    """

    temperature: float
    thresholds: FloatArray
    inside: float
    outside: float


@dataclass(frozen=True, eq=False)
class _Rehearsal:
    """Held-out rows of one fold: ``label`` counts the fold's own categories, -1 outside them."""

    logits: FloatArray
    label: IntArray
    true: IntArray
    distance: FloatArray
    quality: FloatArray  # (n, m) outcomes
    table: FloatArray  # (c, m) expected quality


def calibrate(
    kind: Classifier,
    x: FloatArray,
    quality: FloatArray,
    label: IntArray,
    fold: IntArray,
    *,
    shrinkage: float,
    max_fallback: float,
    temperature: float | None = None,
) -> Calibration:
    """Rehearse over ``fold`` (n,), and fit temperature and thresholds; every row has a label."""
    if temperature is not None and max_fallback <= 0:
        return Calibration(temperature, _NEVER, 0.0, np.nan)
    done = list(_rehearse(kind, x, quality, label, fold, shrinkage))
    known = [(r.logits[r.label >= 0], r.label[r.label >= 0]) for r in done]
    temperature = temperature or fit_temperature(known)
    if not done or max_fallback <= 0:
        return Calibration(temperature, _NEVER, 0.0, np.nan)
    parts = [_signals(r, temperature) for r in done]
    found = Signals(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in Signals.__match_args__)
    )
    inside = np.concatenate([r.label for r in done]) >= 0
    if not inside.any():  # every held-out query was the only one of its category
        return Calibration(temperature, _NEVER, 0.0, np.nan)
    true = np.concatenate([r.true for r in done])
    own, general = (
        np.concatenate(q) for q in zip(*(_reached(r, temperature) for r in done), strict=True)
    )
    weight = _weights(true, inside, max_fallback) * ~np.isnan(own - general)
    gain = weight * np.nan_to_num(general - own)  # of falling back, per row
    thresholds = _search(found, inside, gain, max_fallback)
    fallen = doubts(found, thresholds)
    outside = float(fallen[~inside].mean()) if (~inside).any() else np.nan
    return Calibration(temperature, thresholds, float(fallen[inside].mean()), outside)


def doubts(found: Signals, thresholds: FloatArray) -> BoolArray:
    """Return which queries any signal objects to, (n,)."""
    entropy, margin, distance = thresholds
    objected: BoolArray = (
        (found.entropy >= entropy) | (found.margin <= margin) | (found.distance >= distance)
    )
    return objected


def _rehearse(
    kind: Classifier,
    x: FloatArray,
    quality: FloatArray,
    label: IntArray,
    fold: IntArray,
    shrinkage: float,
) -> Iterator[_Rehearsal]:
    categories, unit = int(label.max()) + 1, without_features(x)
    # With one or two categories none can be hidden: nothing would be left to tell apart.
    hidden = np.arange(categories) % FOLDS if categories > 2 else np.full(categories, -1)
    for f in range(FOLDS):
        outside = hidden[label] == f
        train = (fold != f) & ~outside
        kept = np.unique(label[train])
        own = np.full(categories, -1)
        own[kept] = np.arange(len(kept))
        held = np.flatnonzero(((fold == f) & (own[label] >= 0)) | outside)
        if not len(kept) or not len(held) or np.isnan(quality[train]).all():
            continue
        y = own[label[train]]
        state = fit_classifier(kind, x[train], y, len(kept))
        values = logits(kind, x[held], state, len(kept))
        yield _Rehearsal(
            logits=values,
            label=own[label[held]],
            true=label[held],
            distance=signals(softmax(values), unit[held], unit[train]).distance,
            quality=quality[held],
            table=fit_table(quality[train], y, len(kept), shrinkage=shrinkage).quality,
        )


def _signals(r: _Rehearsal, temperature: float) -> Signals:
    # The distance does not depend on the temperature.
    sure = signals(softmax(r.logits / temperature), np.zeros((len(r.label), 1)), np.zeros((1, 1)))
    return Signals(sure.entropy, sure.margin, r.distance)


def _reached(r: _Rehearsal, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Return the quality (n,) of the category's expert, and of the general one."""
    rows = np.arange(len(r.label))
    own = np.argmax(softmax(r.logits / temperature) @ r.table, axis=1)
    return r.quality[rows, own], r.quality[:, int(np.argmax(r.table.mean(axis=0)))]


def _weights(true: IntArray, inside: BoolArray, outside_share: float) -> FloatArray:
    """Weigh categories alike, and expect ``outside_share`` of the traffic outside them, (n,)."""
    weight = np.zeros(len(true))
    for side, share in ((inside, 1 - outside_share), (~inside, outside_share)):
        count = np.bincount(true[side], minlength=int(true.max()) + 1)
        weight[side] = share / (count[true[side]] * max((count > 0).sum(), 1))
    return weight


def _search(found: Signals, inside: BoolArray, gain: FloatArray, max_fallback: float) -> FloatArray:
    """Try all combinations of quantiles; of the feasible ones the best, then the least falling."""
    shares = np.array(_SHARES) * max_fallback
    entropy = found.entropy[inside].clip(min=_SURE)
    margin = found.margin[inside].clip(max=1 - _SURE)
    distance = found.distance[inside].clip(min=_SURE)
    if inside.all():  # nothing stands for queries outside the taxonomy
        return np.array([np.inf, _DEFAULT_MARGIN, np.quantile(distance, 0.99)])
    grid = product(
        [np.inf, *np.quantile(entropy, 1 - shares[1:])],
        [-np.inf, *np.quantile(margin, shares[1:])],
        np.quantile(distance, 1 - shares[1:]),  # the strangest always fall back
    )
    best = (-np.inf, -np.inf, np.array([np.inf, -np.inf, np.quantile(distance, 1 - shares[1])]))
    for candidate in map(np.array, grid):
        fallen = doubts(found, candidate)
        rate = float(fallen[inside].mean())
        if rate <= max_fallback and (round(float(gain[fallen].sum()), 9), -rate) > best[:2]:
            best = (round(float(gain[fallen].sum()), 9), -rate, candidate)
    return best[2]
