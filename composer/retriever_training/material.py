"""What a retriever learns from: queries, passages, and which passages answer which query."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from composer.json_lines import json_object, numbered_lines
from composer.judged import JudgedQuery, read_corpus, read_judged
from experts_registry.errors import DataError

__all__ = [
    "Material",
    "Parts",
    "held_out",
    "of_judged",
    "of_pairs",
    "read_judged_material",
    "read_pairs",
]

FEWEST_QUERIES = 10
_PAIR = 'write one JSON object a line, {"query": ..., "passage": ...}'
_FEWEST_GROUPS = 40  # of queries, one a passage mostly: with fewer all questions are about these
_FEWEST_HELD, _MOST_HELD = 50, 300  # more take long to rank and tell little more


@dataclass(frozen=True)
class Material:
    """Queries that differ, and passages that differ.

    Args:
        queries: each of at least one relevant passage.
        passages: all that are searched, relevant to a query here or not.
        relevant: of each query, row of a passage -> grade, above 0.
    """

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    relevant: tuple[Mapping[int, int], ...]

    @property
    def digest(self) -> str:
        """Identify the content."""
        graded = [sorted(rows.items()) for rows in self.relevant]
        text = json.dumps([self.queries, self.passages, graded])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Parts:
    """Rows of queries to train on, and of those that are held out."""

    train: tuple[int, ...]
    held: tuple[int, ...]


def of_pairs(pairs: Iterable[tuple[str, str]], corpus: Iterable[str] = ()) -> Material:
    """Return the material of (query, passage) pairs.

    Args:
        pairs: a query may come with several passages.
        corpus: what is searched besides their passages.

    Raises:
        DataError: there are too few queries.
    """
    return _material(((query, {passage: 1}) for query, passage in pairs), corpus)


def of_judged(judged: Iterable[JudgedQuery], corpus: Mapping[str, str]) -> Material:
    """Return the material of judged queries.

    Args:
        judged: queries and the ids of their passages.
        corpus: passage id -> text.

    Raises:
        DataError: there are too few queries, or a passage is not in the corpus.
    """
    graded = (
        (q.text, {_text(corpus, q, name): g for name, g in q.relevant.items()}) for q in judged
    )
    return _material(graded, corpus.values())


def read_judged_material(
    folder: Path, corpus: Path | None = None, *, split: str | None = None
) -> Material:
    """Read a folder of judged queries.

    Args:
        folder: holds them.
        corpus: folder of the passages; by default the same.
        split: only these queries; by default ``train`` and those of no split.

    Raises:
        DataError: a file is missing or wrong, or too few queries are left.
    """
    queries = read_judged(folder, split=split)
    if split is None:
        queries = tuple(query for query in queries if query.split in ("train", ""))
    return of_judged(queries, read_corpus(corpus or folder))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read a JSONL file of pairs.

    Raises:
        DataError: it cannot be read, or a line holds no pair.
    """
    pairs = []
    for number, line in numbered_lines(path, _PAIR):
        where = f"{path}:{number}"
        try:
            row = json_object(line, _PAIR)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        pairs.append((_field(row, "query", where), _field(row, "passage", where)))
    if not pairs:
        raise DataError(f"{path}: holds no pair; {_PAIR}")
    return pairs


def held_out(material: Material, *, share: float, seed: int) -> Parts:
    """Part the queries at random: those held out are never trained on, nor are their passages.

    Queries of one passage are held out together. Otherwise an expert that has learned its
    passages by heart looks good: on XQuAD, five languages about each paragraph, one gained 0.22 of
    nDCG@10 on queries about paragraphs it knew and lost 0.09 on others. Where there are only a few
    passages, or they join too many queries, queries are parted one by one.

    A fifth of a few hundred queries proves little, so at least 50 are held out of up to a third.
    """
    n = len(material.queries)
    wanted = min(max(round(share * n), min(_FEWEST_HELD, n // 3)), _MOST_HELD)
    groups = _groups(material)
    held = _drawn(groups, wanted, seed)
    if len(groups) < _FEWEST_GROUPS or len(held) < wanted / 2:
        held = set(np.random.default_rng(seed).permutation(n)[:wanted].tolist())
    train = tuple(row for row in range(n) if row not in held)
    return Parts(train=train, held=tuple(sorted(held)))


def _drawn(groups: Sequence[Sequence[int]], most: int, seed: int) -> set[int]:
    """Return the rows of random groups, as many as there is room for."""
    drawn: set[int] = set()
    for group in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if len(drawn) + len(groups[group]) <= most:
            drawn.update(groups[group])
    return drawn


def _groups(material: Material) -> list[list[int]]:
    """Return the rows of queries that a chain of relevant passages joins."""
    n = len(material.queries)
    joined = [(row, n + passage) for row, rows in enumerate(material.relevant) for passage in rows]
    size = n + len(material.passages)
    edges = coo_array((np.ones(len(joined)), np.array(joined).T), shape=(size, size))
    _, label = connected_components(edges, directed=False)
    groups: dict[int, list[int]] = {}
    for row in range(n):
        groups.setdefault(int(label[row]), []).append(row)
    return list(groups.values())


def _material(graded: Iterable[tuple[str, Mapping[str, int]]], corpus: Iterable[str]) -> Material:
    """Join what is the same query or the same passage: so no copy leaks out of its part."""
    queries: dict[str, str] = {}  # as it is compared -> as it was first written
    relevant: dict[str, dict[int, int]] = {}
    rows: dict[str, int] = {}
    for query, passages in graded:
        same = " ".join(query.split()).casefold()
        queries.setdefault(same, query)
        found = relevant.setdefault(same, {})
        for passage, grade in passages.items():
            row = rows.setdefault(passage, len(rows))
            found[row] = max(grade, found.get(row, 0))
    for passage in corpus:
        rows.setdefault(passage, len(rows))
    if len(queries) < FEWEST_QUERIES:
        raise DataError(
            f"training: {len(queries)} different queries are too few to train and to judge on; "
            f"give at least {FEWEST_QUERIES}, better some hundred"
        )
    if len(rows) < 2:
        raise DataError("training: there is one passage; nothing can be learned without others")
    return Material(tuple(queries.values()), tuple(rows), tuple(relevant.values()))


def _text(corpus: Mapping[str, str], query: JudgedQuery, name: str) -> str:
    if name not in corpus:
        raise DataError(
            f"query {query.id!r}: passage {name!r} is not in the corpus; add it, or remove the "
            "judgment"
        )
    return corpus[name]


def _field(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        what = f"{value!r} is not text" if key in row else "is missing"
        raise DataError(f"{where}: {key}: {what}; {_PAIR}")
    return value
