"""Tell queries of a domain that nobody was tried on from the familiar ones.

Two signals, each calibrated so that it alone takes at most alpha of familiar queries for unknown;
a query that both take for unknown is, so the share of these is at most alpha too:

    closeness(x) = max_k cos(x, mu_k) over the centres of the training queries, low when unknown
    energy(x) = -log sum_e exp(s_e / T), high when unknown; Liu et al., "Energy-based
        Out-of-distribution Detection", https://arxiv.org/abs/2010.03759

Calibrate on queries that were not learned from: `held_out_closeness` leaves each out of its own
centre; energies are of held-out scores. `novelty_threshold` takes what is low when unknown, thus
the energy with its sign turned.
"""

import numpy as np

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray

__all__ = ["closeness", "energy", "held_out_closeness", "novelty_threshold"]

_TINY = 1e-12


def closeness(x: FloatArray, centres: FloatArray) -> FloatArray:
    """Return the cosine (n,) of embeddings (n, d) to the nearest of the centres (k, d)."""
    nearest: FloatArray = (_unit(x) @ _unit(centres).T).max(axis=1)
    return nearest


def held_out_closeness(x: FloatArray, centres: FloatArray) -> FloatArray:
    """Return the closeness (n,) that each training query has without having drawn its own centre.

    The nearest centre is replaced by the mean of the other queries that are nearest to it; where
    there are none, it is not there, and a lone query has a closeness of -1.

    Args:
        x: (n, d) the training queries.
        centres: (k, d) about the means of the queries nearest to each, as k-means gives them.
    """
    x = _unit(x)
    similarity = x @ _unit(centres).T  # (n, k)
    own = similarity.argmax(axis=1)
    total = np.zeros((len(centres), x.shape[1]))
    np.add.at(total, own, x)
    rest = total[own] - x  # (n, d)
    is_alone = np.bincount(own, minlength=len(centres))[own] == 1
    mine = np.where(is_alone, -1.0, (x * _unit(rest)).sum(axis=1))
    similarity[np.arange(len(x)), own] = -1.0
    held: FloatArray = np.maximum(mine, similarity.max(axis=1))
    return held


def energy(scores: FloatArray, *, temperature: float = 1.0) -> FloatArray:
    """Return -log sum_e exp(s_e / T), (n,), of scores (n, m); higher where all are low."""
    logits = scores / temperature
    highest = logits.max(axis=1, keepdims=True)
    result: FloatArray = -(highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1)))
    return result


def novelty_threshold(known: FloatArray, *, alpha: float = 0.05) -> float:
    """Return the value that at most a share alpha of familiar queries is below.

    With j = floor(alpha (n + 1)) it is the j-th lowest of the n values: a further one of the same
    kind is below it with probability at most alpha, whatever the distribution (Vovk et al.,
    "Algorithmic Learning in a Random World"). With fewer than 1 / alpha - 1 values nothing is.

    Args:
        known: (n,) closeness, or energy with its sign turned, of familiar held-out queries.
        alpha: share of them that may be taken for unknown.
    """
    if not 0 <= alpha < 1:
        raise OptionError(f"alpha: {alpha!r} is not a share; use a number of at least 0, below 1")
    rank = int(np.floor(alpha * (len(known) + 1) + 1e-9))
    return float(np.partition(known, rank - 1)[rank - 1]) if rank else -np.inf


def _unit(x: FloatArray) -> FloatArray:
    rows: FloatArray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _TINY)
    return rows
