"""Read pilots: similarities to each retriever, how sure the first one is, and when to doubt it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.baselines import macro_mean
from routers.data import RoutingDataset
from routers.pilot_library import PilotLibrary, winners
from routers.temperature import fit_temperature_of_best

__all__ = [
    "Aggregate",
    "Reading",
    "fall_back",
    "fit_reading",
    "margins",
    "put_first",
    "similarities",
]

Aggregate = Literal["mean", "max", "softmax_mean", "weighted_mean"]
IntArray = NDArray[np.integer[Any]]
FAR = -1.0  # similarity to a retriever without pilots: nothing is farther on the unit sphere
_SHARP = 0.1  # similarity by which a pilot must be farther to count 1/e in the softmax mean
_QUANTILES = np.linspace(0.02, 0.98, 49)
_ALWAYS = 4.0  # no margin is above 2
_LEAST_SLOPE = 0.01
_AHEAD = 1e-3  # by which the general retriever comes first in doubt


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read similarities.

    Args:
        temperature: what they are divided by before the softmax.
        tau: margin below which the general retriever is asked.
        slope: quality that a retriever is ahead by per similarity that it is ahead by.
    """

    temperature: float
    tau: float
    slope: float


def similarities(x: FloatArray, library: PilotLibrary, m: int, aggregate: Aggregate) -> FloatArray:
    """Return sim (n, m) of unit rows x (n, d); -1 for a retriever without pilots."""
    each = x @ library.vector.T  # (n, p)
    found = np.full((len(x), m), FAR, dtype=np.float64)
    for expert in np.unique(library.expert):
        own = library.expert == expert
        found[:, expert] = _combined(each[:, own], library.weight[own], aggregate)
    return found


def _combined(each: FloatArray, weight: FloatArray, aggregate: Aggregate) -> FloatArray:
    """Return one similarity per row of those to one retriever's pilots (n, p)."""
    if aggregate == "max":
        return np.asarray(each.max(axis=1))
    if aggregate == "weighted_mean":
        return np.asarray(each @ (weight / weight.sum()))
    if aggregate == "softmax_mean":
        share = np.exp((each - each.max(axis=1, keepdims=True)) / _SHARP)
        return np.asarray((share * each).sum(axis=1) / share.sum(axis=1))
    return np.asarray(each.mean(axis=1))


def margins(similarity: FloatArray) -> FloatArray:
    """Return the lead of the first retriever over the second (n,); infinite without a second."""
    if similarity.shape[1] < 2:
        return np.full(len(similarity), np.inf)
    two = np.partition(similarity, -2, axis=1)
    return np.asarray(two[:, -1] - two[:, -2])


def fall_back(similarity: FloatArray, general: int, tau: float) -> FloatArray:
    """Put the general retriever (column) first in rows whose margin is below tau, (n, m)."""
    return put_first(similarity, general, margins(similarity) < tau)


def put_first(scores: FloatArray, column: int, rows: NDArray[np.bool_]) -> FloatArray:
    """Put one column ahead of all others in some rows, (n, m)."""
    changed = scores.copy()
    changed[rows, column] = scores[rows].max(axis=1) + _AHEAD
    return changed


def fit_reading(
    similarity: FloatArray,
    away: FloatArray,
    data: RoutingDataset,
    general: int,
    *,
    fallback: bool,
) -> Reading:
    """Fit temperature and tau to similarities (n, m) by pilots of other queries.

    Tau has the best mean of two qualities: of queries from the collections that the pilots come
    from, and of queries from a collection that nobody knows, which each in turn stands for.

    Args:
        similarity: of the queries of the data.
        away: the same, by the pilots of other collections alone.
        data: their outcomes.
        general: column of the retriever that is asked in doubt.
        fallback: whether it ever is.
    """
    decided = np.any(winners(data.quality), axis=1, keepdims=True)
    best = np.where(decided, data.quality, np.nan)  # where all tie, nobody is the best
    temperature = fit_temperature_of_best(similarity, best)
    tau = _tau((similarity, away), data, general) if fallback else 0.0
    return Reading(temperature=temperature, tau=tau, slope=_slope(similarity, data.quality))


def _slope(similarity: FloatArray, quality: FloatArray) -> float:
    """Regress quality on similarity (n, m), both less their means over the retrievers."""
    known = ~np.isnan(quality)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled, seen = np.where(known, quality, 0), np.where(known, similarity, 0)
    ahead = np.where(known, filled - filled.sum(axis=1, keepdims=True) / count, 0)
    nearer = np.where(known, seen - seen.sum(axis=1, keepdims=True) / count, 0)
    slope = float((ahead * nearer).sum() / max(float((nearer**2).sum()), 1e-12))
    return max(slope, _LEAST_SLOPE)  # nearer comes first, even if it has proved worth nothing


def _tau(worlds: Sequence[FloatArray], data: RoutingDataset, general: int) -> float:
    """Return the tau with the best mean quality over similarities (n, m), the least of equals."""
    lead = np.concatenate([margins(each) for each in worlds])
    if not np.isfinite(lead).all():  # there is one retriever
        return 0.0
    candidates = [0.0, *np.unique(np.quantile(lead, _QUANTILES)).tolist(), _ALWAYS]
    reached = [
        sum(_reached(fall_back(each, general, tau), data) for each in worlds) for tau in candidates
    ]
    return float(candidates[int(np.argmax(np.round(reached, 6)))])


def _reached(utility: FloatArray, data: RoutingDataset) -> float:
    """Return the mean quality over categories of what comes first; ties count in parts."""
    first = utility >= utility.max(axis=1, keepdims=True)
    known = first & ~np.isnan(data.quality)
    quality = np.where(known, data.quality, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    quality = np.where(known.any(axis=1), quality, np.nan)
    found = RoutingDataset(
        queries=data.queries, experts=("chosen",), quality=quality[:, None], category=data.category
    )
    return float(np.nan_to_num(macro_mean(found)[0]))
