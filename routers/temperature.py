"""Turn scores into probabilities of being the best expert: one temperature for all.

Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, with the
experts in place of classes. Without it the p of a policy means another thing for every router.
"""

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["fit_temperature_of_best"]

_RANGE = 1e4  # times the spread of the scores, either way
_HALVINGS = 50


def fit_temperature_of_best(scores: FloatArray, quality: FloatArray) -> float:
    """Return T such that softmax(scores / T) best predicts, by cross-entropy, who is best.

    The target is uniform over the experts with the highest quality. In 1/T the loss is convex and
    its slope is mean over queries of (sum_e p_e s_e - sum_e t_e s_e): T is where it is zero, found
    by bisection. Scores without information give the upper end, 10,000 times their spread, where
    all shares are alike; where nothing can be told, because scores never differ, it is 1.

    Args:
        scores: (n, m) of queries that the router was not fitted on; -inf where unavailable.
        quality: (n, m); NaN where not graded, which leaves the cell out.
    """
    seen = ~np.isnan(quality) & np.isfinite(scores)
    rows = seen.sum(axis=1) > 1
    seen = seen[rows]
    score = np.where(seen, scores[rows], 0).astype(np.float64)
    score -= np.max(score, axis=1, keepdims=True, where=seen, initial=-np.inf)
    spread = float(np.sqrt(np.mean(score**2, where=seen))) if seen.any() else 0.0
    if spread == 0:
        return 1.0
    known = np.where(seen, quality[rows], -np.inf)
    best = known == known.max(axis=1, keepdims=True)
    reached = float((np.where(best, score, 0).sum(axis=1) / best.sum(axis=1)).mean())
    low, high = np.log(spread / _RANGE), np.log(spread * _RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _expected(score, seen, float(np.exp(middle))) < reached:
            high = middle  # too flat
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def _expected(score: FloatArray, seen: np.ndarray, temperature: float) -> float:
    """Return the mean over queries of sum_e softmax(score / T)_e score_e, the highest at 0."""
    weight = np.where(seen, np.exp(np.where(seen, score, 0) / temperature), 0)
    return float(((weight * score).sum(axis=1) / weight.sum(axis=1)).mean())
