"""How near a query is to the training queries: what the guard calls familiar.

    closeness(x) = max_k cos(x, mu_k) over the centres mu of the training queries

It is low for queries of a domain that nobody was tried on. For training queries themselves it is
taken with each left out of its own centre, or they would seem more familiar than others ever are.
"""

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["closeness", "held_out_closeness"]

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


def _unit(x: FloatArray) -> FloatArray:
    rows: FloatArray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _TINY)
    return rows
