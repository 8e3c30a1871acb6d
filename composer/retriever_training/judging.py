"""How well a retriever ranks: nDCG@10 of each query, and whether training gained anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from composer.statistics import Estimate, bootstrap, interval
from experts_registry.types import FloatArray

__all__ = ["Judgment", "cross_fitted", "judged", "ndcg", "optimism"]

_DEPTH = 10
_PARTS, _PARTINGS = 3, 20
_RESAMPLES = 10_000
_SURE = 0.9  # as gates must be before they replace the best constant policy


@dataclass(frozen=True)
class Judgment:
    """What training gained on held-out queries.

    Args:
        before: mean nDCG@10 of the base.
        after: of the trained retriever.
        gain: what may be expected of it on other queries, with its 95 % interval; less than
            ``after - before``, which profits from stopping at the best of many evaluations.
        probability: that it is above 0, by the bootstrap.
    """

    before: float
    after: float
    gain: Estimate
    probability: float

    @property
    def is_better(self) -> bool:
        """Whether it may replace the base for queries of its kind."""
        return self.gain.value > 0 and self.probability >= _SURE


def ndcg(
    queries: FloatArray, passages: FloatArray, relevant: Sequence[Mapping[int, int]]
) -> FloatArray:
    """Return nDCG@10 of each query (n,).

    The gain of a passage is its grade, discounted by log2(rank + 1); the ideal ranking is over all
    relevant passages, as trec_eval has it.

    Args:
        queries: (n, d), unit rows.
        passages: (p, d), unit rows.
        relevant: of each query, row of a passage -> grade.
    """
    scores = queries @ passages.T  # (n, p)
    depth = min(_DEPTH, scores.shape[1])
    top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    ranked = np.take_along_axis(top, order, axis=1)  # (n, depth)
    discount = 1 / np.log2(np.arange(2, _DEPTH + 2))
    found = np.empty(len(queries))
    for i, (rows, known) in enumerate(zip(ranked, relevant, strict=True)):
        gains = np.array([known.get(int(row), 0) for row in rows])
        best = np.sort(np.fromiter(known.values(), float))[::-1][:_DEPTH]
        found[i] = gains @ discount[:depth] / (best @ discount[: len(best)])
    return found


def cross_fitted(history: FloatArray, seed: int) -> FloatArray:
    """Return what stopping at the best evaluation gains on each query (n,), without its own help.

    The evaluation that looks best among many looks better than it is. So the queries are parted
    into thirds, each of which is judged at the evaluation that the others would have stopped at;
    the mean over many partings depends little on any one. Of more parts noise profits: on pure
    noise a gain was then believed in a fifth of the cases, of thirds in an eighth.

    Args:
        history: (evaluations, n) quality; the first row is of the untrained base.
        seed: of the parts.
    """
    n = history.shape[1]
    rng, gain = np.random.default_rng(seed), np.zeros(n)
    for _ in range(_PARTINGS):
        part = rng.permutation(n) % _PARTS
        for own in (part == i for i in range(_PARTS)):
            stop = int(history[:, ~own].mean(axis=1).argmax())
            gain[own] += history[stop, own] - history[0, own]
    return gain / _PARTINGS


def optimism(history: FloatArray, seed: int) -> float:
    """Return by how much the best evaluation looks better than `cross_fitted` says that it is."""
    best = history[int(history.mean(axis=1).argmax())] - history[0]
    return max(0.0, float(best.mean() - cross_fitted(history, seed).mean()))


def judged(history: FloatArray, gain: FloatArray, seed: int) -> Judgment:
    """Judge a training.

    Args:
        history: (evaluations, n) quality; the first row is of the untrained base.
        gain: (n,) of each query, paired.
        seed: of the bootstrap.
    """
    draws = bootstrap(gain[:, None], np.zeros(len(gain), int), _RESAMPLES, seed)[:, 0]
    means = history.mean(axis=1)
    return Judgment(
        before=float(means[0]),
        after=float(means.max()),
        gain=Estimate(float(gain.mean()), interval(draws)),
        probability=float((draws > 0).mean()),
    )
