"""Which (category, expert) cells to evaluate next, where labels are dear.

A two-level bandit after "Bohdi: Heterogeneous LLM Fusion with Automatic Data Exploration", arXiv
2506.15721: a tree of categories with experts as leaves, Beta counts, walked from the root by
Thompson sampling towards where a model may beat the one in use. Here the one in use is the
expert with the best estimate in the category, and what a walk looks for is regret: qualities are
drawn from the posterior, the category is taken where the drawn best expert beats the one in use
by most, weighted by traffic; then one of the two is evaluated, as in top-two Thompson sampling
(D. Russo, "Simple Bayesian algorithms for best-arm identification", arXiv 1602.08448).

A cell's prior is its expert's mean over all categories, worth ``prior`` outcomes, and Jeffreys'
half outcome of either kind; that of an expert without outcomes is one half.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from experts_registry.errors import DataError, OptionError
from experts_registry.types import FloatArray
from routers.data import RoutingDataset
from routers.drift import Cell

__all__ = ["next_cells"]


def next_cells(
    data: RoutingDataset,
    budget: int,
    *,
    weight: Mapping[str, float] | None = None,
    prior: float = 4.0,
    seed: int = 0,
) -> dict[Cell, int]:
    """Say how many new labels each (category, expert) cell should get, most first.

    Args:
        data: outcomes so far; every column is an expert that may be evaluated, graded or not.
        budget: labels to give away.
        weight: share of the traffic by category; by default its share of the queries.
        prior: outcomes that an expert's overall mean is worth in each category.
        seed: of the draws.

    Raises:
        OptionError: the budget is below 1, the prior is not positive, or no category has weight.
        DataError: the outcomes have no categories or fewer than two experts.
    """
    if budget < 1 or not prior > 0:
        raise OptionError(f"budget: {budget}, prior: {prior}; use at least 1, and more than 0")
    categories, experts = data.categories, data.experts
    if not categories or len(experts) < 2:
        raise DataError("outcomes: need categories and two experts to choose cells from")
    right, wrong = _counts(data, prior)  # (c, m)
    share = np.bincount(data.labels[data.labels >= 0], minlength=len(categories)).astype(float)
    if weight is not None:
        share = np.array([weight.get(name, 0.0) for name in categories])
    if not share.sum() > 0:
        raise OptionError("weight: no category of the outcomes has any; name some of them")
    chosen: Counter[Cell] = Counter()
    rng = np.random.default_rng(seed)
    for _ in range(budget):
        c, e = _walk(right, wrong, share, rng)
        chosen[categories[c], experts[e]] += 1
        # The label is not known yet. Expecting the mean keeps a batch from asking for it again.
        mean = right[c, e] / (right[c, e] + wrong[c, e])
        right[c, e] += mean
        wrong[c, e] += 1 - mean
    return dict(chosen.most_common())


def _counts(data: RoutingDataset, prior: float) -> tuple[FloatArray, FloatArray]:
    """Return the Beta counts (c, m) of every cell, its prior included."""
    seen = ~np.isnan(data.quality)
    quality = np.where(seen, data.quality, 0.0)
    overall = (quality.sum(axis=0) + 1.0) / (seen.sum(axis=0) + 2.0)  # (m,)
    member = data.labels[None, :] == np.arange(len(data.categories))[:, None]  # (c, n)
    total, count = member @ quality, member @ seen.astype(np.float64)
    # The half keeps an expert that never failed elsewhere from looking certain here.
    return total + prior * overall + 0.5, count - total + prior * (1 - overall) + 0.5


def _walk(
    right: FloatArray, wrong: FloatArray, share: FloatArray, rng: np.random.Generator
) -> tuple[int, int]:
    """Return the category and the expert that a draw from the posterior asks about."""
    used = (right / (right + wrong)).argmax(axis=1)  # (c,)
    rows = np.arange(len(used))
    drawn = rng.beta(right, wrong)  # (c, m)
    gain = drawn.max(axis=1) - drawn[rows, used]
    c = int(np.argmax(share * gain))
    if not share[c] * gain[c] > 0:  # nobody seems to beat the one in use anywhere
        c = int(rng.choice(len(share), p=share / share.sum()))
    best = int(drawn[c].argmax())
    return c, best if rng.random() < 0.5 or best == used[c] else int(used[c])
