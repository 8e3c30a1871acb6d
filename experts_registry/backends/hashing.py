"""An encoder without weights: hashed words and character n-grams.

Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009): each feature adds
its sign to one of ``dimensions`` buckets. It knows no synonyms, but tells topics, languages and
scripts apart, needs no download, and takes microseconds.
"""

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from math import log1p
from zlib import crc32

import numpy as np
from pydantic import BaseModel, Field

from experts_registry.backends.options import parse_options
from experts_registry.schema import ExpertSpec
from experts_registry.types import FloatArray, Role

__all__ = ["HashingEmbedder", "Options"]


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    dimensions: int = Field(512, ge=8, le=65536, description="Length of a vector.")
    shortest: int = Field(3, ge=1, le=8, description="Characters of the shortest n-gram.")
    longest: int = Field(5, ge=1, le=8, description="Characters of the longest n-gram.")


class HashingEmbedder:
    """Embeds a text as the signed, hashed counts of its words and character n-grams."""

    offers: tuple[str, ...] = ("embeddings",)
    is_quick = True  # for a short text less than a switch of threads, and it waits for nobody

    def __init__(self, spec: ExpertSpec) -> None:
        self._options = parse_options(Options, spec)

    @property
    def digest(self) -> str:
        """Identify the vectors."""
        return hashlib.sha256(f"hashing-1 {self._options!r}".encode()).hexdigest()

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one L2-normalised float32 row per text, (n, d)."""
        x = np.zeros((len(texts), self._options.dimensions), dtype=np.float32)
        for row, text in zip(x, texts, strict=True):
            buckets = self._hashed(text)
            row[list(buckets)] = list(buckets.values())
        return x

    def shortened(self, x: FloatArray, dimensions: int) -> FloatArray:
        """Return rows of fewer dimensions: features then share more buckets."""
        shorter = np.zeros((len(x), dimensions), dtype=np.float32)
        for start in range(0, x.shape[1], dimensions):
            part = x[:, start : start + dimensions]
            shorter[:, : part.shape[1]] += part
        return _unit(shorter)

    def close(self) -> None:
        """Nothing is held."""

    def _hashed(self, text: str) -> dict[int, float]:
        """Return the buckets of a text, of length 1; plain numbers, as a short one has few."""
        width = self._options.dimensions
        found: dict[int, float] = {}
        for code, count in Counter(map(crc32, self._features(text))).items():
            # Damped: a word said ten times is not ten times as telling.
            value = log1p(count) if code & 1 else -log1p(count)
            bucket = (code >> 1) % width
            found[bucket] = found.get(bucket, 0.0) + value
        length = math.sqrt(sum(value * value for value in found.values()))
        # An empty text has no direction of its own; it gets a fixed one so that rows are unit.
        return {k: v / length for k, v in found.items()} if length else {0: 1.0}

    def _features(self, text: str) -> list[bytes]:
        words = unicodedata.normalize("NFKC", text).casefold().split()
        text = f" {' '.join(words)} "
        features = [f"w:{word}".encode() for word in words]
        sizes = range(self._options.shortest, self._options.longest + 1)
        if text.isascii():  # then bytes are characters: cut once encoded, not encoded once cut
            whole = text.encode()
            return features + [whole[i : i + n] for n in sizes for i in range(len(whole) - n + 1)]
        return features + [
            text[i : i + n].encode() for n in sizes for i in range(len(text) - n + 1)
        ]


def _unit(x: FloatArray) -> FloatArray:
    # An empty text has no direction of its own; it gets a fixed one so that rows are unit.
    x[~x.any(axis=1), 0] = 1.0
    unit: FloatArray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit
