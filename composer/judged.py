"""Judged queries: what was asked of a collection, and which of its passages answer it.

A folder in one of two layouts, each file plain or gzipped::

    queries.jsonl  {"query_id": "q1", "text": "...", "split": "train"}     qrels.csv
    queries.jsonl  {"_id": "q1", "text": "..."}       qrels/train.tsv  qrels/test.tsv

``qrels.csv`` has the columns ``query_id,doc_id,relevance``; the second layout is that of BEIR
(Thakur et al., "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of Information Retrieval
Models", NeurIPS 2021), whose files are ``query-id corpus-id score`` separated by tabs, one per
split. The collection itself is ``corpus.jsonl``: ``doc_id`` or ``_id``, ``title``, ``text``.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer.json_lines import json_object, numbered_lines
from experts_registry.errors import DataError, nearest
from routers.data import SPLITS

__all__ = ["JudgedQuery", "read_corpus", "read_judged"]

_QUERY = 'write one JSON object a line, {"query_id": ..., "text": ...}'
_PASSAGE = 'write one JSON object a line, {"doc_id": ..., "title": ..., "text": ...}'
_SPLITS = {"dev": "val", "validation": "val"}  # what others call it


@dataclass(frozen=True, kw_only=True)
class JudgedQuery:
    """A query and the passages that answer it.

    Args:
        id: unique in its folder.
        text: what is asked.
        relevant: passage id -> grade, above 0; never empty.
        split: ``train``, ``val``, ``test``, or an empty string where nobody decided.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    split: str = ""


def read_judged(folder: str | Path, *, split: str | None = None) -> tuple[JudgedQuery, ...]:
    """Read the queries of a folder that have at least one relevant passage, in the file's order.

    Args:
        folder: in one of the two layouts.
        split: only these; ``dev`` and ``validation`` are ``val``.

    Raises:
        DataError: a file is missing or wrong, or nothing is left.
    """
    folder = Path(folder)
    queries = _read_queries(_file(folder, "queries.jsonl"))
    wanted = None if split is None else _SPLITS.get(split, split)
    if any((folder / f"qrels.csv{end}").exists() for end in ("", ".gz")):
        found = _judged_in_table(folder, queries, wanted)
    else:
        found = _judged_in_splits(folder, queries, wanted)
    if not found:
        there = "" if split is None else f" of split {split!r}"
        raise DataError(f"{folder}: holds no query{there} with a relevant passage; check the qrels")
    return tuple(query for name in queries if (query := found.get(name)) is not None)


def read_corpus(folder: str | Path) -> dict[str, str]:
    """Read the passages of a folder: id -> title and text as retrievers embed them.

    Raises:
        DataError: the file is missing or wrong, or an id comes twice.
    """
    path = _file(Path(folder), "corpus.jsonl")
    passages: dict[str, str] = {}
    for where, row in _objects(path, _PASSAGE):
        name = _name(row, ("doc_id", "_id"), where)
        if name in passages:
            raise DataError(f"{where}: doc_id: {name!r} comes twice; give each passage its own")
        passages[name] = f"{row.get('title') or ''} {_text(row, where)}".strip()
    if not passages:
        raise DataError(f"{path}: holds no passage; {_PASSAGE}")
    return passages


def _read_queries(path: Path) -> dict[str, tuple[str, str]]:
    """Return query id -> text and split."""
    queries: dict[str, tuple[str, str]] = {}
    for where, row in _objects(path, _QUERY):
        name = _name(row, ("query_id", "_id"), where)
        if name in queries:
            raise DataError(f"{where}: query_id: {name!r} comes twice; give each query its own")
        text = _text(row, where)
        if not text.strip():
            raise DataError(f"{where}: text: is empty; write what is asked")
        queries[name] = text, _split(row.get("split") or "", where)
    return queries


def _judged_in_table(
    folder: Path, queries: Mapping[str, tuple[str, str]], split: str | None
) -> dict[str, JudgedQuery]:
    grades = _grades(_file(folder, "qrels.csv"), queries)
    return {
        name: JudgedQuery(id=name, text=queries[name][0], relevant=found, split=queries[name][1])
        for name, found in grades.items()
        if split in (None, queries[name][1])
    }


def _judged_in_splits(
    folder: Path, queries: Mapping[str, tuple[str, str]], split: str | None
) -> dict[str, JudgedQuery]:
    judged: dict[str, JudgedQuery] = {}
    files = sorted(p for p in (folder / "qrels").glob("*.tsv*") if p.suffix in (".tsv", ".gz"))
    if not files:
        raise DataError(f"{folder}: holds neither qrels.csv nor qrels/SPLIT.tsv; add the judgments")
    for path in files:
        name_of_split = _split(path.name.split(".")[0], str(path))
        if split not in (None, name_of_split):
            continue
        for name, found in _grades(path, queries).items():
            if name in judged:
                raise DataError(
                    f"{path}: query {name!r} is in split {judged[name].split!r} too; "
                    "remove it from one, or name the split to read"
                )
            text = queries[name][0]
            judged[name] = JudgedQuery(id=name, text=text, relevant=found, split=name_of_split)
    return judged


def _grades(path: Path, queries: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return query id -> passage id -> grade, those above 0 only."""
    tab = ".tsv" in path.suffixes
    columns = "query-id, corpus-id, score" if tab else "query_id, doc_id, relevance"
    grades: dict[str, dict[str, int]] = {}
    for number, line in numbered_lines(path, f"name a table of {columns}"):
        where = f"{path}:{number}"
        row = _cells(line, "\t" if tab else ",", where)
        if len(row) != 3:
            raise DataError(f"{where}: has {len(row)} columns, not 3; write {columns}")
        name, passage, grade = (cell.strip() for cell in row)
        if number == 1 and not _is_whole(grade):
            continue  # the names of the columns
        if not _is_whole(grade):
            raise DataError(f"{where}: {grade!r} is not a grade; write a whole number, 1 or more")
        if name not in queries:
            hint = nearest(name, tuple(queries))
            raise DataError(f"{where}: query {name!r} is not in queries.jsonl{hint}")
        if int(grade) > 0:  # some collections mark what was not judged by -1
            grades.setdefault(name, {})[passage] = int(grade)
    return grades


def _cells(line: bytes, delimiter: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter))
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8; save the file as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{where}: is not a row of a table ({error})") from None


def _split(name: Any, where: str) -> str:
    if (known := _SPLITS.get(name, name)) not in SPLITS:
        raise DataError(f"{where}: split: {name!r} is not one of train, val (or dev), test")
    return str(known)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _objects(path: Path, instead: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a line is, and its object."""
    for number, line in numbered_lines(path, instead):
        where = f"{path}:{number}"
        try:
            yield where, json_object(line, instead)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _name(row: Mapping[str, Any], keys: tuple[str, str], where: str) -> str:
    value = next((row[key] for key in keys if key in row), None)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {' or '.join(keys)}: {value!r} is not a name; use a text")
    return value


def _text(row: Mapping[str, Any], where: str) -> str:
    value = row.get("text")
    if not isinstance(value, str):
        raise DataError(f"{where}: text: {value!r} is not text; quote it")
    return value


def _file(folder: Path, name: str) -> Path:
    """Return the file, or its gzipped twin.

    Raises:
        DataError: neither is there.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder}: holds no {name} or {name}.gz; name a folder of judged queries")
