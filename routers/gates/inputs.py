"""From a question and a search to what the heads read: embeddings, and numbers beside them."""

from collections.abc import Mapping, Sequence

import numpy as np

from experts_registry.types import FloatArray
from routers.gates.features import WORDING, rarity, wording

__all__ = ["fit_scale", "raw_inputs", "scaled", "stretches_of"]

_MEANING = 2.0  # of embeddings beside columns of spread 1
_FARTHEST = 5.0  # standard deviations; farther out a number says no more than that it is unusual


def raw_inputs(
    queries: Sequence[str] | None,
    x: FloatArray,
    search: FloatArray | None,
    frequencies: Mapping[str, FloatArray],
) -> FloatArray:
    """Return z (n, d + f): embeddings, wording, rarity by store, search by store; NaN unknown.

    Args:
        queries: (n) texts, where there are any.
        x: (n, d) embeddings.
        search: (n, s, 4) of `routers.gates.search`; None where the gate does not read it.
        frequencies: by store, how common its words are.
    """
    n, unknown = len(x), np.full((len(x), 1), np.nan)
    texts = [""] * n if queries is None else queries
    parts = [x, wording(texts), *(rarity(texts, table) for table in frequencies.values())]
    if queries is None:
        parts[1:] = [np.broadcast_to(unknown, part.shape) for part in parts[1:]]
    if search is not None:
        parts.append(search.reshape(n, -1))
    return np.hstack(parts).astype(np.float64)


def stretches_of(width: int, embedded: int) -> FloatArray:
    """Return which columns of z may count how much (3, width): from the store, wording, meaning.

    What the store says of a question takes the fewest queries to learn from, its embedding the
    most. The columns of an embedding are small: they add up to a length of 1.
    """
    store, all_but_meaning, everything = np.ones((3, width))
    store[: embedded + len(WORDING)] = 0
    all_but_meaning[:embedded] = 0
    everything[:embedded] = _MEANING
    return np.stack([store, all_but_meaning, everything])


def fit_scale(z: FloatArray, embedded: int) -> FloatArray:
    """Return means and spreads (2, f) of the columns behind the embeddings."""
    known = ~np.isnan(rest := z[:, embedded:])
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rest, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (rest - mean) ** 2, 0).sum(axis=0) / count)
    # A column that never changes stays at 0.
    return np.stack([mean, np.where(spread > 1e-9, spread, np.inf)])


def scaled(z: FloatArray, scale: FloatArray) -> FloatArray:
    """Return z with columns of mean 0 and spread 1; what is unknown is at the mean."""
    embedded = z.shape[1] - scale.shape[1]
    rest = np.clip((z[:, embedded:] - scale[0]) / scale[1], -_FARTHEST, _FARTHEST)
    return np.hstack([z[:, :embedded], np.nan_to_num(rest)])
