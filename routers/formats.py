"""Read outcome files as tables with our column names, each row knowing where it came from."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from experts_registry.errors import DataError, nearest
from routers.outcomes import read_table

__all__ = [
    "NUMBERS",
    "TEXTS",
    "Part",
    "read_jsonl",
    "read_parquet",
    "read_public",
    "read_tokens",
]

TEXTS = ("query_id", "query", "category", "split", "expert")
NUMBERS = ("quality", "cost_usd", "active_params", "seconds")
NEEDED = ("query_id", "query", "expert", "quality")
TOKENS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
# Our name of a column -> that of the format.
PUBLIC = {"expert": "model", "quality": "score", "category": "task"}
JSONL = {"query_id": "qid", "category": "domain", "quality": "scores", "cost_usd": "cost"}


@dataclass(frozen=True)
class Part:
    """Rows of one source; ``where`` names the place of a row for people."""

    table: pa.Table
    where: Callable[[int], str]
    called: Mapping[str, str] = field(default_factory=dict)  # our column names -> the file's

    def error(self, row: int, column: str, problem: str) -> DataError:
        """Build the error for one value."""
        return DataError(f"{self.where(row)}, {self.called.get(column, column)}: {problem}")


def read_parquet(path: Path) -> Part:
    """Read a Parquet file, or every one in a folder, one row per cell."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: holds neither Parquet files nor queries.jsonl.gz; name a file or folder of "
            "outcomes"
        )
    tables = [_chosen(read_table(file), file) for file in files]
    ends = np.cumsum([len(table) for table in tables])

    def where(row: int) -> str:
        i = min(int(np.searchsorted(ends, row, side="right")), len(files) - 1)
        return f"{files[i]}: row {row - (ends[i] - len(tables[i]))}"

    try:
        return Part(pa.concat_tables(tables, promote_options="permissive"), where)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path}: its files disagree on a type ({error}); write them alike"
        ) from error


def read_public(folder: Path) -> tuple[Part, Part]:
    """Read the layout of public logs, ``queries.jsonl.gz`` and ``outcomes.csv.gz``.

    Returns:
        The cells, and the queries.
    """
    file, source = folder / "queries.jsonl.gz", folder / "outcomes.csv.gz"
    records = [record for _, record in _lines(file)]
    names = ("query_id", "query", "category", "split")
    columns = {name: [record.get(PUBLIC.get(name, name)) for record in records] for name in names}
    queries = Part(_table(columns, file), lambda row: f"{file}:{row + 1}", PUBLIC)
    try:
        table = csv.read_csv(source)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{source}: cannot be read as CSV ({error})") from error
    for name in ("query_id", "model", "score"):
        _require(name, table, source)
    ours = {theirs: ours for ours, theirs in PUBLIC.items()}
    table = table.rename_columns([ours.get(name, name) for name in table.column_names])
    return Part(table, lambda row: f"{source}:{row + 2}", PUBLIC), queries


def read_jsonl(path: Path) -> tuple[Part, Part]:
    """Read one query a line: ``qid``, ``query``, ``domain``, ``split``, ``scores``, ``cost``, ...

    Returns:
        The cells, and the queries.
    """
    queries: dict[str, list[Any]] = {n: [] for n in ("query_id", "query", "category", "split")}
    cells: dict[str, list[Any]] = {
        n: [] for n in ("query_id", "expert", "quality", "cost_usd", "seconds")
    }
    lines: list[int] = []
    cell_lines: list[int] = []
    for line, record in _lines(path):
        lines.append(line)
        for name, values in queries.items():
            values.append(record.get(JSONL.get(name, name)))
        scores, cost, usage = (_object(record, k, path, line) for k in ("scores", "cost", "usage"))
        for expert, score in scores.items():
            latency = _object(usage, expert, path, line).get("latency_ms")
            seconds = latency / 1000 if isinstance(latency, int | float) else None
            cell = (record.get("qid"), expert, score, cost.get(expert), seconds)
            for column, value in zip(cells.values(), cell, strict=True):
                column.append(value)
            cell_lines.append(line)
    return (
        Part(_table(cells, path), lambda row: f"{path}:{cell_lines[row]}", JSONL),
        Part(_table(queries, path), lambda row: f"{path}:{lines[row]}", JSONL),
    )


def read_tokens(path: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return column -> expert -> known token counts; nothing where a format holds none."""
    if path.is_dir() and (path / "outcomes.csv.gz").exists():
        table, expert = csv.read_csv(path / "outcomes.csv.gz"), "model"
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        return {}
    else:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        names = ["expert", *TOKENS]
        tables = [read_table(file) for file in files]
        tables = [t.select([n for n in names if n in t.column_names]) for t in tables]
        table, expert = pa.concat_tables(tables, promote_options="permissive"), "expert"
    who = np.array(table[expert].to_pylist(), dtype=object)
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name in TOKENS:
        if name in table.column_names:
            count = table[name].cast(pa.float64()).to_numpy()
            found[name] = {e: count[(who == e) & ~np.isnan(count)] for e in sorted(set(who))}
    return found


def _chosen(table: pa.Table, file: Path) -> pa.Table:
    """Return the columns we read; others may hold anything."""
    for name in NEEDED:
        _require(name, table, file)
    return table.select([n for n in (*TEXTS, *NUMBERS) if n in table.column_names])


def _require(name: str, table: pa.Table, file: Path) -> None:
    if name not in table.column_names:
        listed = ", ".join(table.column_names)
        hint = nearest(name, table.column_names)
        raise DataError(
            f"{file}: column {name!r} is missing, it has {listed}; add the column{hint}"
        )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of every line that holds one."""
    number = 0
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise DataError(f"{path}:{number}: is not a JSON object; write one a line")
                yield number, record
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: is not JSON ({error.msg}); write one object") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); UTF-8 JSON lines are expected"
        ) from error


def _object(record: Mapping[str, Any], key: str, path: Path, line: int) -> dict[str, Any]:
    value = record.get(key) or {}
    if not isinstance(value, dict):
        raise DataError(f"{path}:{line}, {key}: is not an object; write {{expert: value}}")
    return value


def _table(columns: Mapping[str, Sequence[Any]], path: Path) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{path}, {name}: mixes types ({error}); write one type") from error
    return pa.table(arrays)
