"""Split outcomes by query so that no prompt, nor one nearly like it, is on both sides.

Two prompts are alike when they are equal after normalisation, or when the Jaccard similarity of
their character 5-grams is at least 0.8 and they hold the same numbers: the same words with other
numbers are another question. Pairs are found exactly, by the prefix filter of Bayardo, Ma and
Srikant, "Scaling Up All Pairs Similarity Search", WWW 2007: two sets that similar share one of
their rarest members.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import DataError, OptionError
from experts_registry.types import FloatArray
from routers.data import RoutingDataset

__all__ = ["Leak", "Split", "SplitReport", "find_alike", "find_leaks", "folds", "groups", "split"]

IntArray = NDArray[np.integer[Any]]
SIMILAR = 0.8
_GRAM = 5
_TEMPLATE_SHARE, _TEMPLATE_COUNT = 0.02, 20  # grams in more queries than this are boilerplate
_NO_MEANING = re.compile(r"[^\w+\-*/=<>^%]+")  # punctuation; what changes a formula stays
_OPERATOR = re.compile(r" ?([+\-*/=<>^%]) ?")


@dataclass(frozen=True)
class Leak:
    """A test query that is, or nearly is, a training query; both by row."""

    test: int
    train: int
    similarity: float

    @property
    def kind(self) -> Literal["exact", "near"]:
        """Whether the two are equal after normalisation."""
        return "exact" if self.similarity == 1 else "near"


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """How a split came about: drawn at random, or given by the data's split column."""

    source: Literal["drawn", "column"]
    train: int
    test: int
    alike: int  # queries that were kept together with another one
    dropped: tuple[str, ...] = ()  # ids of test queries that leaked


@dataclass(frozen=True)
class Split:
    """Training and test rows, and how they were chosen."""

    train: RoutingDataset
    test: RoutingDataset
    report: SplitReport


def split(data: RoutingDataset, *, test: float = 0.2, seed: int = 0) -> Split:
    """Split by query, stratified by category, queries that are alike on one side.

    Where the data says which rows are ``test``, that is kept, and test rows that are like a
    training row are dropped and reported.

    Raises:
        OptionError: ``test`` is not a share.
        DataError: there are too few queries to have both sides.
    """
    if not 0 < test < 1:
        raise OptionError(f"test: {test} is not between 0 and 1; use the share of test queries")
    given = np.array(data.split) == "test"
    if given.any() and not given.all():
        return _given(data, given)
    group = data.alike
    is_test = np.zeros(len(data), dtype=bool)
    target = 0.0
    for members in _strata(data, group, np.random.default_rng(seed)):
        # What one category could not fill is carried to the next, so that the total is right.
        target += test * sum(map(len, members))
        for rows in members:
            if len(rows) <= target + 0.5 - 1e-9:
                is_test[rows] = True
                target -= len(rows)
    if not is_test.any() or is_test.all():
        raise DataError(
            f"outcomes: {len(data)} queries, {len(np.unique(group))} of them distinct, are too few "
            "to hold some out for test; collect more"
        )
    train, held = data.select(~is_test), data.select(is_test)
    alike = int((np.bincount(group)[group] > 1).sum())
    report = SplitReport(source="drawn", train=len(train), test=len(held), alike=alike)
    return Split(train, held, report)


def folds(data: RoutingDataset, k: int = 5, *, seed: int = 0) -> IntArray:
    """Return the fold of each row (n,), stratified by category, queries alike in one fold."""
    fold = np.empty(len(data), dtype=np.intp)
    size = np.zeros(k, dtype=np.intp)
    for members in _strata(data, data.alike, np.random.default_rng(seed)):
        for rows in members:
            smallest = int(np.argmin(size))
            fold[rows] = smallest
            size[smallest] += len(rows)
    return fold


def find_leaks(train: Sequence[str], test: Sequence[str]) -> list[Leak]:
    """Return, for each test query that is like a training query, the most similar one."""
    first, second, similarity = _pairs((*train, *test))
    crossing = (first < len(train)) & (second >= len(train))
    best: dict[int, Leak] = {}
    for i, j, s in zip(first[crossing], second[crossing], similarity[crossing], strict=True):
        leak = Leak(int(j) - len(train), int(i), float(s))
        if leak.test not in best or best[leak.test].similarity < leak.similarity:
            best[leak.test] = leak
    return [best[row] for row in sorted(best)]


def find_alike(queries: Sequence[str]) -> tuple[IntArray, IntArray, FloatArray]:
    """Return all pairs i < j of queries that are alike, and their similarity (1 where equal)."""
    return _pairs(tuple(queries))


def _given(data: RoutingDataset, is_test: NDArray[np.bool_]) -> Split:
    train, test = data.select(~is_test), data.select(is_test)
    leaked = [leak.test for leak in find_leaks(train.queries, test.queries)]
    kept = test.select(np.setdiff1d(np.arange(len(test)), leaked))
    if not len(kept):
        raise DataError(
            "split: every test query is also a training query; split the data another way"
        )
    dropped = tuple(test.ids[row] for row in leaked)
    report = SplitReport(
        source="column", train=len(train), test=len(kept), alike=len(leaked), dropped=dropped
    )
    return Split(train, kept, report)


def _strata(
    data: RoutingDataset, group: IntArray, rng: np.random.Generator
) -> list[list[IntArray]]:
    """Return, per category, the rows of each group of queries alike, shuffled."""
    order = np.argsort(group, kind="stable")
    same = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    strata: dict[str, list[IntArray]] = {}
    for i in rng.permutation(len(same)):
        strata.setdefault(data.category[same[i][0]], []).append(same[i])
    return [strata[name] for name in sorted(strata)]


def groups(queries: Sequence[str]) -> IntArray:
    """Number the groups of queries that are alike, directly or through others, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second, _ = _pairs(tuple(queries))
    shape = (len(queries), len(queries))
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=shape)
    labels: IntArray = connected_components(graph, directed=False)[1]
    return labels


@lru_cache(maxsize=2)  # the same queries are split again and again
def _pairs(queries: tuple[str, ...]) -> tuple[IntArray, IntArray, FloatArray]:
    """Return all pairs i < j that are alike, and their similarity (1 only where equal)."""
    texts = [_normal(query) for query in queries]
    index: dict[str, int] = {}
    code = np.array([index.setdefault(text, len(index)) for text in texts], dtype=np.intp)
    rows: list[list[int]] = [[] for _ in index]
    for row, c in enumerate(code):
        rows[c].append(row)
    found = [(i, j, 1.0) for same in rows for a, i in enumerate(same[:50]) for j in same[a + 1 :]]
    for a, b, s in zip(*_near(list(index)), strict=True):
        found += [(min(i, j), max(i, j), float(s)) for i in rows[a] for j in rows[b]]
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    table.setflags(write=False)
    return table[:, 0].astype(np.intp), table[:, 1].astype(np.intp), table[:, 2]


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _OPERATOR.sub(r"\1", _NO_MEANING.sub(" ", folded)).strip() or folded.strip()


def _near(texts: Sequence[str]) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the pairs of distinct texts whose 5-grams are similar."""
    from scipy.sparse import csr_array

    nothing = np.empty(0, dtype=np.intp)
    if len(texts) < 2:
        return nothing, nothing, np.empty(0)
    grams = [_grams(text) for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(g) for g in grams])
    _, column, count = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    telling = count[column] <= max(_TEMPLATE_COUNT, _TEMPLATE_SHARE * len(texts))
    row, column = row[telling], column[telling]
    order = np.lexsort((column, count[column], row))  # rarest first within each text
    row, column = row[order], column[order]
    size = np.bincount(row, minlength=len(texts))
    place = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
    prefix = (place <= (size - np.ceil(SIMILAR * size))[row]) & (count[column] > 1)
    shape = (len(texts), len(count))
    rare = csr_array((np.ones(prefix.sum(), np.int32), (row[prefix], column[prefix])), shape=shape)
    candidates = (rare @ rare.T).tocoo()
    above = candidates.row < candidates.col
    i, j = candidates.row[above], candidates.col[above]
    close = (np.minimum(size[i], size[j]) >= SIMILAR * np.maximum(size[i], size[j])) & (
        _numbers(texts)[i] == _numbers(texts)[j]
    )
    i, j = i[close], j[close]
    whole = csr_array((np.ones(len(row), np.int32), (row, column)), shape=shape)
    both = np.asarray(whole[i].multiply(whole[j]).sum(axis=1)).ravel()
    similarity = both / np.maximum(size[i] + size[j] - both, 1)
    alike = similarity >= SIMILAR
    return i[alike], j[alike], np.minimum(similarity[alike], 1 - 1e-9)


def _numbers(texts: Sequence[str]) -> IntArray:
    """Number the distinct lists of numbers in the texts, (n,)."""
    index: dict[tuple[str, ...], int] = {}
    found = (tuple(re.findall(r"\d+", text)) for text in texts)
    return np.array([index.setdefault(numbers, len(index)) for numbers in found], dtype=np.intp)


def _grams(text: str) -> NDArray[np.uint64]:
    """Return the distinct hashed character 5-grams of a text; a shorter one is one gram."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    points = np.pad(points.astype(np.uint64), (0, max(0, _GRAM - len(points))))
    code = np.zeros(len(points) - _GRAM + 1, dtype=np.uint64)
    for offset in range(_GRAM):
        # A polynomial hash modulo 2**64; the odd multiplier keeps every bit of each character.
        code = code * np.uint64(0x9E3779B97F4A7C15) + points[offset : offset + len(code)]
    return np.unique(code)
