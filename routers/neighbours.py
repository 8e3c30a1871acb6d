"""Re-mix a router's scores with what the nearest solved queries say.

Li et al., "C3PO: Critical-Layer, Core-Expert, Collaborative Pathway Optimization",
https://arxiv.org/abs/2504.07964, its kernel regression, with whole models as experts. With q the
router's qualities and o_e the outcomes of the k nearest solved queries, x_i, weighted by
K_i = exp(-|x - x_i|^2 / (2 h^2)), what a query is worth to everybody being taken out of both:

    o_e = sum_i K_i (S_ie - b_i) / sum_i K_i        b_i = mean_e (S_ie - mean_e)
    score_e + (1 - a) ((o_e - mean o) - (q_e - mean q))

so that a, the share of the router's own view, is 1 where nothing changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.transforms import Context

__all__ = ["Neighbours"]

IntArray = NDArray[np.integer[Any]]
_SOLVED = 0.5  # quality from which an answer counts as right
_KERNEL = 0.1  # h^2: a neighbour whose cosine is lower by this counts 1/e
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
_CERTAIN = 2.0  # standard errors by which a change must pay on held-out queries
_BLOCK = 600_000  # similarities held at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """A score transform; `fit` makes one. Every field can be saved as it is.

    Args:
        experts: (m) names of the columns of ``outcomes``.
        reference: (d, r) unit embeddings of solved queries, as columns.
        outcomes: (r, m) quality less what the query is worth to everybody; NaN where not graded.
        own: share of the router's own view, in [0, 1].
        k: how many neighbours.
    """

    experts: tuple[str, ...]
    reference: FloatArray
    outcomes: FloatArray
    own: float = 1.0
    k: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.own <= 1:
            raise OptionError(f"neighbours: {self.own!r} is not a share; use a number in [0, 1]")
        if self.k < 1:
            raise OptionError(f"k: {self.k!r} is below 1; use 1 or more")

    @classmethod
    def fit(
        cls,
        x: FloatArray,
        quality: FloatArray,
        *,
        experts: Sequence[str],
        own: float | None = None,
        scores: FloatArray | None = None,
        cost: FloatArray | None = None,
        cost_weight: float = 0.0,
        k: int = 3,
    ) -> Self:
        """Keep the solved queries, and choose the share of the router's own view.

        It is the one of 1, 0.75, 0.5, 0.25, 0 that earns the most on the solved queries, each
        left out of its own neighbours, if that is more than with 1 by two standard errors.

        Args:
            x: (n, d) unit embeddings.
            quality: (n, m) in [0, 1]; NaN where not graded.
            experts: (m) names.
            own: the share; by default it is chosen.
            scores: (n, m) qualities that the router predicts for queries it was not fitted on;
                needed to choose.
            cost: (n, m), NaN where unknown; to choose by quality less weighted cost.
            cost_weight: quality given up for the dearest expert's mean cost.
            k: how many neighbours.

        Raises:
            OptionError: there is nothing to choose the share by.
        """
        solved = np.max(quality, axis=1, where=~np.isnan(quality), initial=0) >= _SOLVED
        fitted = cls(
            experts=tuple(experts),
            reference=np.ascontiguousarray(x[solved].T, dtype=np.float32),
            outcomes=_outcomes(quality)[solved].astype(np.float32),
            own=1.0 if own is None else own,
            k=k,
        )
        if own is not None:
            return fitted
        if scores is None:
            raise OptionError(
                "neighbours: their share cannot be chosen without held-out scores of the router; "
                "give scores, or own"
            )
        price = _price(cost, cost_weight, quality.shape)
        return fitted._chosen(scores[solved], quality[solved], price[solved])

    def __call__(self, scores: FloatArray, context: Context) -> FloatArray:
        """Return the re-mixed scores (n, m); an expert that no neighbour asked keeps its own."""
        column = {name: i for i, name in enumerate(self.experts)}
        names = context.prediction.experts
        known = [i for i, name in enumerate(names) if name in column]
        if self.own == 1 or not known or not self.outcomes.size:
            return scores
        x = np.asarray(context.x[:, : len(self.reference)], dtype=np.float32)
        said = self._said(x)[:, [column[names[i]] for i in known]]
        change = np.zeros(scores.shape)
        change[:, known] = _difference(said, context.prediction.quality[:, known])
        mixed: FloatArray = scores + (1 - self.own) * change
        return mixed

    def note(self, before: FloatArray, after: FloatArray, context: Context) -> str | None:
        """Say whom the neighbours moved to the first place."""
        was, now = int(before[0].argmax()), int(after[0].argmax())
        if was == now:
            return None
        names = context.prediction.experts
        return f"the {self.k} nearest solved queries speak for {names[now]} over {names[was]}"

    def _said(self, x: FloatArray, *, itself: bool = True) -> FloatArray:
        """Return the neighbours' outcomes (n, m), NaN where none was graded.

        With ``itself`` false, row i is the i-th reference, and no neighbour of its own.
        """
        said = np.empty((len(x), len(self.experts)))
        for rows, similarity in self._similarities(x):
            if not itself:
                similarity[np.arange(len(similarity)), np.arange(rows.start, rows.stop)] = -np.inf
            said[rows] = self._regress(similarity)
        return said

    def _similarities(self, x: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        step = max(1, _BLOCK // max(self.reference.shape[1], 1))
        for start in range(0, len(x), step):
            rows = slice(start, min(start + step, len(x)))
            yield rows, np.asarray(x[rows] @ self.reference)

    def _regress(self, similarity: FloatArray) -> FloatArray:
        """Return the kernel regression (n, m); takes the k highest out of the cosines (n, r)."""
        rows, near, close = np.arange(len(similarity)), [], []
        for _ in range(min(self.k, similarity.shape[1])):  # faster than sorting for a few
            near.append(similarity.argmax(axis=1))
            close.append(similarity[rows, near[-1]])
            similarity[rows, near[-1]] = -np.inf
        nearest, cosine = np.stack(near, axis=1), np.stack(close, axis=1)  # (n, k)
        top = np.maximum(cosine[:, :1], -1)
        kernel = np.exp((cosine - top) / _KERNEL)[:, :, None]  # |x - x_i|^2 = 2 - 2 cos
        values = self.outcomes[nearest]  # (n, k, m)
        weight = np.where(np.isnan(values), 0, kernel)
        total = weight.sum(axis=1)
        mean = (weight * np.nan_to_num(values)).sum(axis=1) / np.where(total > 0, total, 1)
        return np.where(total > 0, mean, np.nan)

    def _chosen(self, scores: FloatArray, quality: FloatArray, price: FloatArray) -> Self:
        """Return the same with the best share; all (r, m), of the reference queries."""
        if len(scores) < 2:
            return self
        change = _difference(self._said(self.reference.T, itself=False), scores)
        expected = price.mean(axis=0)
        best, margin = 1.0, 0.0
        base = (scores - expected).argmax(axis=1)
        for own in _SHARES[1:]:
            choice = (scores + (1 - own) * change - expected).argmax(axis=1)
            gain = _gain(quality - price, base, choice)
            mean, error = gain.mean(), gain.std() / np.sqrt(len(gain))
            if mean > max(margin, _CERTAIN * error):
                best, margin = own, float(mean)
        return replace(self, own=best)


def _outcomes(quality: FloatArray) -> FloatArray:
    """Return quality (n, m) less b_i = mean_e (S_ie - mean_e) over the graded cells of a query.

    A neighbour that only strong experts were asked is not easier for that.
    """
    seen = ~np.isnan(quality)
    filled = np.where(seen, quality, 0)
    mean = filled.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    worth = np.where(seen, quality - mean, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    outcomes: FloatArray = quality - worth[:, None]
    return outcomes


def _price(cost: FloatArray | None, weight: float, shape: tuple[int, ...]) -> FloatArray:
    """Return cost in units of quality (n, m); an unknown one is that of the dearest expert."""
    if cost is None or not weight or np.isnan(cost).all():
        return np.zeros(shape)
    known = ~np.isnan(cost)
    mean = np.where(known, cost, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    scale = max(float(mean.max()), 1e-12)
    return weight * np.where(known, cost, np.where(known.any(axis=0), mean, scale)) / scale


def _difference(said: FloatArray, quality: FloatArray) -> FloatArray:
    """Return (o_e - mean o) - (q_e - mean q) over the experts with an o_e (n, m), 0 elsewhere."""
    seen = ~np.isnan(said)
    apart = np.where(seen, said - quality, 0)
    mean = apart.sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    return np.where(seen, apart - mean, 0)


def _gain(value: FloatArray, base: IntArray, choice: IntArray) -> FloatArray:
    """Return what each changed choice earned (n,), 0 where it stayed or is not graded."""
    rows = np.arange(len(value))
    return np.nan_to_num(np.where(base == choice, 0, value[rows, choice] - value[rows, base]))
