"""The words of a query, hashed: beside an embedding, and what they tell alone.

A sentence encoder keeps what a query means and forgets how it is put; which benchmark, template or
user a query comes from, and how long its answer will be, is often said by the words. So routers
read both, the halves of one unit vector: signed hashing (Weinberger et al., "Feature Hashing for
Large Scale Multitask Learning", ICML 2009) keeps cosines, on average.

Alone, with ridge regression, they are what a router with an encoder has to beat. The penalty is
chosen by generalised cross-validation, which needs no second fit: Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", Technometrics 1979:

    GCV(a) = n |y - H y|^2 / (n - tr H)^2,  H = Z (Z'Z + a I)^-1 Z'
"""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = ["WORDS", "bag_of_words", "beside_words", "predict_from_words"]

WORDS = 256  # buckets beside an embedding; twice as many change nothing on the shared tables
_WIDTH = 1024  # buckets where there is nothing else
_HALF = math.sqrt(0.5)
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


def beside_words(x: FloatArray, queries: Sequence[str]) -> FloatArray:
    """Return unit rows (n, d + WORDS): embeddings x (n, d) and words, each half of the square."""
    return np.concatenate((x, bag_of_words(queries, WORDS)), axis=1) * np.float32(_HALF)


def bag_of_words(queries: Sequence[str], width: int = _WIDTH) -> FloatArray:
    """Hash the words of each query into buckets, damp the sums, make unit rows (n, width)."""
    z = np.zeros((len(queries), width), dtype=np.float32)
    for row, query in zip(z, queries, strict=True):
        if words := _WORD.findall(query.casefold()):
            count: dict[int, int] = {}
            for code in map(_code, words):
                bucket = (code >> 1) % width
                count[bucket] = count.get(bucket, 0) + (1 if code & 1 else -1)
            damped = [math.copysign(math.log1p(abs(c)), c) if c else 0.0 for c in count.values()]
            # Where all cancels out, no direction is better than an arbitrary one.
            length = max(math.sqrt(sum(d * d for d in damped)), 1e-9)
            row[list(count)] = [d / length for d in damped]
    return z


@lru_cache(maxsize=100_000)  # most words come again, and a look-up takes a third of hashing
def _code(word: str) -> int:
    # CRC-32, because Python's own hash changes from run to run.
    return crc32(word.encode("utf-8", "replace"))


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
