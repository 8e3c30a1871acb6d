"""What the words of a query alone tell: ridge regression on a hashed bag of words.

No encoder, no weights, no language: what a router with an encoder has to beat. The penalty is
chosen by generalised cross-validation, which needs no second fit: Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", Technometrics 1979:

    GCV(a) = n |y - H y|^2 / (n - tr H)^2,  H = Z (Z'Z + a I)^-1 Z'
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = ["bag_of_words", "predict_from_words"]

_WIDTH = 1024  # buckets that words are hashed into
_WORD = re.compile(r"\w+|[^\w\s]")
_PENALTIES = np.geomspace(1, 10_000, 13)


def predict_from_words(train: RoutingDataset, queries: Sequence[str]) -> FloatArray:
    """Return the quality (n, m) of each expert that the words of the queries suggest.

    Args:
        train: outcomes to learn from; a missing one counts as the expert's mean.
        queries: (n) texts.
    """
    known = ~np.isnan(train.quality)
    mean = np.where(known, train.quality, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    y = np.where(known, train.quality - mean, 0)
    z = bag_of_words(train.queries)
    level = z.mean(axis=0)
    weight = _ridge((z - level).astype(np.float32), y.astype(np.float32))
    return np.asarray(mean + (bag_of_words(queries) - level) @ weight, dtype=np.float64)


def bag_of_words(queries: Sequence[str]) -> FloatArray:
    """Hash the words of each query into buckets, damp the counts, make unit rows (n, 1024)."""
    z = np.zeros((len(queries), _WIDTH), dtype=np.float32)
    for row, query in enumerate(queries):
        words = Counter(_WORD.findall(query.casefold()))
        for word, count in words.items():
            # CRC-32, because Python's own hash changes from run to run.
            z[row, zlib.crc32(word.encode("utf-8", "replace")) % _WIDTH] += 1 + np.log(count)
    rows: FloatArray = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-9)
    return rows


def _ridge(z: FloatArray, y: FloatArray) -> FloatArray:
    """Return the weights (width, m) of the penalty with the least generalised error."""
    values, vectors = _principal(z)
    moment = vectors.T @ (z.T @ y)  # (width, m)
    best, least = _PENALTIES[-1], np.inf
    for penalty in _PENALTIES:
        kept = 1 / (values + penalty)[:, None]
        # |y - H y|^2 in the eigenbasis: |y|^2 - sum (2 k - k^2 v) m^2
        left = float((y**2).sum() - ((2 * kept - kept**2 * values[:, None]) * moment**2).sum())
        freedom = len(z) - float((values * kept[:, 0]).sum())
        error = left / max(freedom, 1.0) ** 2
        if error < least:
            best, least = penalty, error
    weight: FloatArray = vectors @ (moment / (values + best)[:, None])
    return weight


def _principal(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues of Z'Z above 0 (r,) and their vectors (width, r)."""
    is_wide = len(z) < z.shape[1]
    values, vectors = np.linalg.eigh(z @ z.T if is_wide else z.T @ z)
    kept = values > 1e-4
    values, vectors = values[kept], vectors[:, kept]
    return values, z.T @ vectors / np.sqrt(values) if is_wide else vectors
