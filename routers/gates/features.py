"""What a gate reads of a question before anybody answers it.

Beside the embedding stand numbers that were found to tell when retrieval helps at a fraction of
the cost of a model's uncertainty: Marina et al., "LLM-Independent Adaptive RAG: Let the Question
Speak for Itself", https://arxiv.org/abs/2505.04253.
"""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np

from experts_registry.types import FloatArray

__all__ = ["BUCKETS", "WORDING", "document_frequencies", "rarity", "wording"]

_ASKS = ("who", "what", "when", "where", "which", "why", "how", "how many")
WORDING = (
    "log words",
    "digits",  # numbers in the text
    "names",  # runs of capitalised words, not counting the first word
    *_ASKS,
    "asks otherwise",
    "comparison",  # "or", "both", "than" ...: the question is about two things
)
BUCKETS = 1 << 16
_WORD = re.compile(r"\w+")
_COMPARES = frozenset(("or", "both", "than", "same", "between", "older", "first"))


def wording(queries: Sequence[str]) -> FloatArray:
    """Return one row of `WORDING` per query, (n, 13)."""
    return np.array([_wording(query) for query in queries]).reshape(len(queries), len(WORDING))


def document_frequencies(texts: Iterable[str]) -> FloatArray:
    """Return how many texts hold a word, plus one, by bucket of the word, and last of all texts.

    Words share buckets, so that a table is small whatever the store: (`BUCKETS` + 1,) float32.
    """
    counts, total = np.zeros(BUCKETS + 1), 0
    for text in texts:
        counts[list({_bucket(word) for word in _WORD.findall(text.casefold())})] += 1
        total += 1
    counts[-1] = total
    return (counts + 1).astype(np.float32)


def rarity(queries: Sequence[str], frequencies: FloatArray) -> FloatArray:
    """Return the highest and the mean idf of each query's words in a store, (n, 2).

    The rarest word is mostly the entity that is asked about; one that no passage holds is the
    rarest of all.
    """
    rows = np.full((len(queries), 2), np.nan)
    total = math.log(float(frequencies[-1]))
    for row, query in zip(rows, queries, strict=True):
        if words := {_bucket(word) for word in _WORD.findall(query.casefold())}:
            idf = total - np.log(frequencies[list(words)])
            row[:] = idf.max(), idf.mean()
    return rows


def _wording(query: str) -> list[float]:
    words = _WORD.findall(query.casefold())
    asks = _asks(words)
    return [
        math.log1p(len(words)),
        float(sum(word.isdigit() for word in words)),
        float(_names(_WORD.findall(query))),
        *(float(asks == name) for name in _ASKS),
        float(not asks),
        float(bool(_COMPARES & set(words))),
    ]


def _names(words: Sequence[str]) -> int:
    """Count runs of capitalised words behind the first word."""
    capital = [word[0].isupper() for word in words[1:]]
    return sum(here and not before for before, here in pairwise([False, *capital]))


def _asks(words: Sequence[str]) -> str:
    """Return the first question word."""
    for i, word in enumerate(words):
        if word == "how" and words[i + 1 : i + 2] in (["many"], ["much"], ["long"], ["old"]):
            return "how many"
        if word in ("whom", "whose"):
            return "who"
        if word in _ASKS:
            return word
    return ""


def _bucket(word: str) -> int:
    return crc32(word.encode("utf-8", "replace")) % BUCKETS
