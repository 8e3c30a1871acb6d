"""Whether a difference is more than luck: paired bootstrap within categories, exact McNemar.

Queries are drawn together for all policies, so that differences are paired, and within each
category, so that every category keeps its weight. McNemar's test counts only the queries on which
two policies differ: with w wins and l losses, under the null w ~ Binomial(w + l, 1/2). Quinn
McNemar, "Note on the sampling error of the difference between correlated proportions or
percentages", Psychometrika 1947.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = [
    "FEWEST",
    "Estimate",
    "Interval",
    "McNemar",
    "Verdict",
    "bootstrap",
    "estimate",
    "interval",
    "macro_weights",
    "mcnemar",
    "over_refits",
    "paired_interval",
    "resamples_of",
    "verdict",
    "wilson",
]

IntArray = NDArray[np.integer[Any]]
Verdict = Literal["better", "worse", "not significant"]
FEWEST_DECIDING = 6  # 2 * 0.5^6 is the first two-sided chance below 5 %
FEWEST = 20  # on fewer queries the bootstrap sees too little to call anything significant
_CELLS = 2_000_000  # weights held in memory at once
_Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class McNemar:
    """Queries on which exactly one of two policies did better, and the exact two-sided p."""

    wins: int
    losses: int
    p: float


def macro_weights(labels: IntArray) -> FloatArray:
    """Weigh queries so that every category counts the same (n,); they sum to 1."""
    _, label, count = np.unique(labels, return_inverse=True, return_counts=True)
    weight: FloatArray = 1.0 / (count[label] * len(count))
    return weight


def resamples_of(labels: IntArray, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield weights (some, n) of queries drawn with replacement within each category."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    chunk = max(1, min(1000, _CELLS // max(1, len(labels))))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        weight = np.empty((size, len(labels)))
        for rows in groups:
            drawn = rng.integers(len(rows), size=(size, len(rows)), dtype=np.int32)
            drawn += np.int32(len(rows)) * np.arange(size, dtype=np.int32)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * len(rows)).reshape(size, -1)
            weight[:, rows] = times / (len(rows) * len(groups))
        yield weight


def bootstrap(values: FloatArray, labels: IntArray, resamples: int, seed: int) -> FloatArray:
    """Return the macro means (resamples, k) of values (n, k)."""
    return np.vstack([weight @ values for weight in resamples_of(labels, resamples, seed)])


def interval(draws: FloatArray) -> Interval:
    """Return the 95 % percentile interval of draws (resamples,)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))


def estimate(value: float, draws: FloatArray) -> Estimate:
    """Return a figure with the interval of its draws (resamples,)."""
    return Estimate(float(value), interval(draws))


def paired_interval(difference: FloatArray, labels: IntArray) -> Interval:
    """Return the 95 % interval of a macro mean difference (n,) by its normal approximation."""
    mean, variance, categories = 0.0, 0.0, np.unique(labels)
    for c in categories:
        own = difference[labels == c]
        mean += float(own.mean()) / len(categories)
        variance += float(own.var()) / len(own) / len(categories) ** 2
    half = _Z * variance**0.5 + 1e-12  # rounding alone is no difference
    return Interval(mean - half, mean + half)


def over_refits(values: Sequence[float], test_share: float = 0.0) -> Estimate:
    """Return the mean over refits with its 95 % interval.

    Random splits share queries, so their spread is too small: it is corrected as by Nadeau and
    Bengio, "Inference for the Generalization Error", Machine Learning 2003,

        variance = (1 / J + test / train) s^2, with J - 1 degrees of freedom

    Args:
        values: (J) one difference, in [-1, 1], per refit; a single one proves nothing.
        test_share: share of queries held out; 0 where the refits share no test query.
    """
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, Interval(-1.0, 1.0))
    factor = 1 / len(values) + test_share / (1 - test_share)
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) * factor**0.5)
    return Estimate(mean, Interval(max(mean - half, -1.0), min(mean + half, 1.0)))


def verdict(found: Interval, queries: int, deciding: int | None = None) -> Verdict:
    """Say what the interval of a difference means; nothing where there are few queries.

    Args:
        found: the 95 % interval.
        queries: that both were followed on.
        deciding: those on which they differ, where that is known. On five even a fair coin shows
            the same side once in sixteen times, which the bootstrap does not see.
    """
    is_few = queries < FEWEST or (deciding is not None and deciding < FEWEST_DECIDING)
    if is_few or found.low <= 0 <= found.high:
        return "not significant"
    return "better" if found.low > 0 else "worse"


def mcnemar(a: FloatArray, b: FloatArray) -> McNemar:
    """Test whether a or b (n,) does better on more queries than chance explains.

    On 0/1 quality this is McNemar's exact test; on other grades, the exact sign test.
    """
    wins, losses = int((a > b).sum()), int((a < b).sum())
    return McNemar(wins, losses, _two_sided(min(wins, losses), wins + losses))


def _two_sided(k: int, n: int) -> float:
    """Return min(1, 2 P(X <= k)) for X ~ Binomial(n, 1/2), in whole numbers."""
    ways = total = 1
    for i in range(1, k + 1):
        ways = ways * (n - i + 1) // i
        total += ways
    return min(1.0, float(Fraction(2 * total, 2**n)))


def wilson(successes: float, n: int) -> Interval:
    """Return Wilson's 95 % interval of a share; successes may be a sum of grades in [0, 1]."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, square = successes / n, _Z**2 / n
    centre = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * float(np.sqrt(share * (1 - share) / n + square / (4 * n)))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
