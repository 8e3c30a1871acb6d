"""How good each expert is on each category, shrunken where little was seen.

Jain et al., "Composition of Experts", https://arxiv.org/abs/2412.01868, step two. With n_ce graded
answers of expert e on category c and k0 pseudo-answers of the additive guess mean_e + b_c:

    P_ce = (n_ce mean_ce + k0 (mean_e + b_c)) / (n_ce + k0)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["Table", "fit_table", "mean_cost"]

IntArray = NDArray[np.integer[Any]]
_ROUNDS = 30
_PRIOR_ANSWERS = 4.0  # of average quality for every expert: two right out of two prove little
_UNTRIED_VARIANCE = 0.25  # an expert that was never graded may be anything in [0, 1]


@dataclass(frozen=True, eq=False)
class Table:
    """Expected quality of each category (rows) and expert (columns), and its variance.

    Args:
        quality: (c, m) in [0, 1].
        variance: (c, m) of the estimate: P (1 - P) / (n_ce + k0), and that of what was borrowed.
    """

    quality: FloatArray
    variance: FloatArray


def fit_table(
    quality: FloatArray, label: IntArray, categories: int, *, shrinkage: float = 20.0
) -> Table:
    """Estimate the table from outcomes (n, m) and category indices (n,), -1 where there is none.

    Outcomes without a category still tell how good an expert is overall.
    """
    rows = np.where(label < 0, categories, label)
    known = ~np.isnan(quality)
    count = _sums(known.astype(float), rows, categories + 1)  # (c + 1, m)
    total = _sums(np.where(known, quality, 0), rows, categories + 1)
    guess = _additive(total, count)[:categories]
    count, total, tried = count[:categories], total[:categories], count.sum(axis=0)  # tried (m,)
    pooled = np.maximum(count + shrinkage, 1e-9)
    estimate = np.where(count + shrinkage > 0, (total + shrinkage * guess) / pooled, guess)
    binomial = np.maximum(estimate * (1 - estimate), 0.05)  # nobody is certain
    borrowed = (shrinkage / pooled) ** 2 / (tried + _PRIOR_ANSWERS)
    variance = np.where(tried > 0, binomial * (1 / pooled + borrowed), _UNTRIED_VARIANCE)
    return Table(estimate, np.minimum(variance, _UNTRIED_VARIANCE))


def mean_cost(cost: FloatArray, label: IntArray, categories: int) -> FloatArray:
    """Return the mean cost (c, m); an expert's overall mean where a category has none, or NaN."""
    known = ~np.isnan(cost)
    overall = np.where(known, cost, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    overall = np.where(known.any(axis=0), overall, np.nan)
    labelled = label >= 0
    count = _sums(known[labelled].astype(float), label[labelled], categories)
    total = _sums(np.where(known, cost, 0)[labelled], label[labelled], categories)
    mean: FloatArray = np.where(count > 0, total / np.maximum(count, 1), overall)
    return mean


def _sums(values: FloatArray, row: IntArray, rows: int) -> FloatArray:
    result = np.zeros((rows, values.shape[1]))
    np.add.at(result, row, values)
    return result


def _additive(total: FloatArray, count: FloatArray) -> FloatArray:
    """Fit mean_e + b_c by least squares over the graded cells, in turns, (c, m).

    An expert that only saw easy categories is not taken for a better one, and one that nobody
    graded is as good as the others on average: never the favourite.
    """
    offset = np.zeros((len(count), 1))
    expert = np.zeros(count.shape[1])
    for _ in range(_ROUNDS):
        left = (total - offset * count).sum(axis=0)
        average = left.sum() / max(count.sum(), 1)
        expert = (left + _PRIOR_ANSWERS * average) / (count.sum(axis=0) + _PRIOR_ANSWERS)
        left = (total - expert * count).sum(axis=1, keepdims=True)
        offset = left / np.maximum(count.sum(axis=1, keepdims=True), 1)
    return np.clip(expert + offset, 0, 1)
