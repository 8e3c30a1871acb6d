"""What can be read off a query without a model: length, code, digits, formulas, language.

An embedding forgets most of it, and it says much about difficulty and about the cost of an answer.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from experts_registry.errors import OptionError
from experts_registry.types import FloatArray
from routers.words import WORDS

__all__ = [
    "FEATURES",
    "as_learned",
    "feature_scale",
    "standardised",
    "text_features",
    "window",
    "without_features",
]

FEATURES = (
    "log characters",
    "log words",
    "log lines",
    "digits",
    "capitals",
    "brackets and other code signs",
    "formula signs",
    "accented letters",
    "Cyrillic, Greek, Arabic, Hebrew, Indic",
    "Chinese, Japanese, Korean",
    "asks",
    "looks like code",
)
_SIGNS = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "{}[]()<>=;_", "+-*/^$\\%|~", " \t", "\n")
_WORDS = ("def", "return", "import", "class", "function", "SELECT", "var", "const", "print")
_CODE_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b")
_CODE_LINE = re.compile(r"[;{}]\s*$", re.M)
_HALF_WINDOW = 2000  # characters kept at either end of a long query
_SPREAD = 0.1  # standard deviation of a feature beside embeddings of length 1
_BLANK, _LINE, _OTHER, _ACCENTED, _ALPHABETS, _EAST = 4, 5, 6, 7, 8, 9
_SHARES = (0, 1, 2, 3, _ACCENTED, _ALPHABETS, _EAST)  # classes whose share of the text counts


def _classes() -> np.ndarray:
    """Return the class of every code point of the basic plane, (65536,)."""
    table = np.full(0x10000, _OTHER, dtype=np.uint8)
    table[0xC0:0x250] = _ACCENTED
    table[0x370:0xE80] = _ALPHABETS
    table[0x2E80:0xFB00] = _EAST
    for number, signs in enumerate(_SIGNS):
        table[[ord(sign) for sign in signs]] = number
    return table


_CLASS = _classes()
_DIGITS = "0123456789"
_ASCII = {point: _DIGITS[_CLASS[point]] for point in range(128)}


def window(text: str) -> str:
    """Return what routers read of a query: the whole of it, or its head and tail.

    Cutting before the encoder keeps a megabyte of text from costing a megabyte of tokenising.
    Lone surrogates, which no tokenizer takes, become question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= 2 * _HALF_WINDOW:
        return text
    return f"{text[:_HALF_WINDOW]}\n...\n{text[-_HALF_WINDOW:]}"


def text_features(queries: Sequence[str]) -> FloatArray:
    """Return one row of `FEATURES` per query (n, 12): logarithms, shares of characters, 0 or 1."""
    rows = np.zeros((len(queries), len(FEATURES)), dtype=np.float32)
    for row, query in zip(rows, queries, strict=True):
        count, size = _counts(query), len(query)
        words, lines = count[_BLANK] + 1, count[_LINE]
        shares = [count[c] / max(size, 1) for c in _SHARES]
        logs = [math.log1p(size), math.log1p(words), math.log1p(lines)]
        row[:] = [*logs, *shares, "?" in query, _is_code(query)]
    return rows


def _counts(text: str) -> list[int]:
    """Return how many characters there are of each class."""
    if text.isascii():  # a tenth of the time of the arrays
        digits = text.translate(_ASCII)
        return [digits.count(digit) for digit in _DIGITS]
    points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    counts: list[int] = np.bincount(_CLASS[np.minimum(points, 0xFFFF)], minlength=10).tolist()
    return counts


def _is_code(text: str) -> bool:
    # Looking for plain words is a hundred times as fast as for a pattern, and mostly in vain.
    return (
        "```" in text
        or (any(map(text.__contains__, _WORDS)) and _CODE_WORD.search(text) is not None)
        or (any(map(text.__contains__, ";{}")) and _CODE_LINE.search(text) is not None)
    )


def feature_scale(z: FloatArray) -> dict[str, FloatArray]:
    """Return the state arrays ``features.mean`` and ``.scale`` (f,) of z (n, d + f)."""
    features = z[:, -len(FEATURES) :]
    spread = np.maximum(features.std(axis=0), 1e-3) / _SPREAD
    return {"features.mean": features.mean(axis=0), "features.scale": spread}


def standardised(z: FloatArray, scale: Mapping[str, FloatArray]) -> FloatArray:
    """Return z with features of mean 0 and a spread that suits them beside an embedding."""
    z = np.array(z)
    features = z[:, -len(FEATURES) :]
    features -= scale["features.mean"]
    features /= scale["features.scale"]
    # Five standard deviations out, a value says no more than that it is unusual.
    np.minimum(np.maximum(features, -5 * _SPREAD), 5 * _SPREAD, out=features)
    return z


def without_features(z: FloatArray) -> FloatArray:
    """Return the unit rows x (n, d) of z (n, d + f)."""
    return z[:, : -len(FEATURES)]


def as_learned(z: FloatArray, width: int, scale: Mapping[str, FloatArray]) -> FloatArray:
    """Return z standardised to a width of d + f.

    Of embeddings alone the words are unknown and the features at their means.

    Raises:
        OptionError: z is neither of that width, nor without features, nor of embeddings alone.
    """
    missing = width - z.shape[1]
    if not missing:
        return standardised(z, scale)
    if missing == len(FEATURES) + WORDS:
        z = z * np.float32(math.sqrt(0.5))
    elif missing != len(FEATURES):
        raise OptionError(
            f"x: has {z.shape[1]} columns; give what embed(queries) returns, or embeddings "
            f"of {width - len(FEATURES) - WORDS} dimensions"
        )
    return np.hstack([z, np.zeros((len(z), missing), dtype=z.dtype)])
