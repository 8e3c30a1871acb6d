"""Search passages by their words.

Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, FnTIR 3(4), 2009,
https://doi.org/10.1561/1500000019, in the form that Lucene computes, with the constants that
BEIR's baselines use.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from composer.stores.scripts import UNSPACED
from experts_registry.errors import ArtefactError, DataError, PluginError
from experts_registry.types import FloatArray

try:
    import bm25s
except ImportError as error:
    raise PluginError(
        "lexical: search by words needs bm25s; install it with pip install "
        "'expert-composer[retrieval]', or leave 'lexical' out"
    ) from error

__all__ = ["Lexical", "words_of"]

_K1, _B = 0.9, 0.4
# Letters and digits of any script; the marks that stand in the middle of words are not in \w.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff"
_RUN = re.compile(rf"[{UNSPACED}]+|(?:(?![_{UNSPACED}])[\w{_MARKS}])+")
_UNSPACED = re.compile(f"[{UNSPACED}]")


class Lexical:
    """An inverted index of passages, memory-mapped; safe from any thread.

    The row of a passage is its place in what the index was built of.
    """

    def __init__(self, index: bm25s.BM25) -> None:
        self._index = index

    @classmethod
    def build(cls, texts: Iterable[str], folder: Path) -> Self:
        """Index texts and write them into a folder.

        Raises:
            DataError: there is no text.
        """
        vocabulary = {"": 0}  # stands for a text without words; no query holds it
        rows = [
            [vocabulary.setdefault(w, len(vocabulary)) for w in words_of(text)] or [0]
            for text in texts
        ]
        if not rows:
            raise DataError(f"{folder}: no text to index; add a passage")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it turns its own debugging on
        index = bm25s.BM25(k1=_K1, b=_B, method="lucene", backend="numpy")
        index.index((rows, vocabulary), show_progress=False)
        index.save(folder, show_progress=False)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what was built.

        Raises:
            ArtefactError: it is missing or damaged.
        """
        try:
            return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ArtefactError(
                f"{folder}: holds no index of words ({error}); run expert-composer store build"
            ) from error

    def __len__(self) -> int:
        return int(self._index.scores["num_docs"])

    def search(self, query: str, k: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Return the rows and scores of at most ``k`` passages that share a word, best first."""
        words = list(words_of(query))
        if not words:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._index.get_scores(words)  # (passages,)
        rows = np.flatnonzero(scores > 0)
        if len(rows) > k:
            rows = rows[np.argpartition(-scores[rows], k - 1)[:k]]
        rows = rows[np.lexsort((rows, -scores[rows]))].astype(np.int64)
        return rows, scores[rows]


def words_of(text: str) -> Iterator[str]:
    """Yield what is indexed of a text: words without case, and pairs where no spaces part words."""
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if len(run) > 1 and _UNSPACED.match(run):
            yield from (run[i : i + 2] for i in range(len(run) - 1))
        else:
            yield run
