"""Outcomes on disk: who answered what, how well, at what price; one Parquet row per cell.

A cell is a (query, expert) pair. Only ``query_id``, ``query``, ``expert`` and ``quality`` are
needed to train; a null quality is a missing one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experts_registry.errors import DataError
from routers.draft import SIGNALS

__all__ = ["outcome_schema", "read_outcomes", "read_table", "write_outcomes", "write_table"]


def outcome_schema() -> pa.Schema:
    """Return the columns of an outcomes file, in order."""
    text, number, count = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        [
            pa.field("query_id", text, nullable=False),
            pa.field("query", text, nullable=False),
            pa.field("category", text),
            pa.field("split", text),
            pa.field("expert", text, nullable=False),
            pa.field("quality", number),  # in [0, 1]; null where the expert was not graded
            pa.field("cost_usd", number),
            pa.field("active_params", number),
            pa.field("prompt_tokens", count),
            pa.field("completion_tokens", count),
            pa.field("seconds", number),
            pa.field("grader", text),
            pa.field("date", text),  # ISO 8601
            pa.field("response", text),
            pa.field("error", text),
            pa.field("cell", text),  # digest of what produced the row, so that a run can resume
            # Of an arm with a store: what was put before the question, and how similar the best
            # passages are to it, best first.
            pa.field("passages", pa.list_(text)),
            pa.field("similarity", pa.list_(number)),
            pa.field("margin", number),  # by which the retriever that was chosen leads the next
            # Of an arm without a store whose expert tells log-probabilities, see `routers.draft`.
            pa.field("draft", pa.struct([pa.field(name, number) for name in SIGNALS])),
        ]
    )


def write_outcomes(path: str | Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as one Parquet file, atomically; keys that a row lacks become null.

    Raises:
        DataError: a value does not fit its column.
    """
    for i, row in enumerate(rows):
        for key in ("query_id", "query", "expert"):
            if row.get(key) is None:
                raise DataError(f"{path}: row {i}, {key}: is missing; every row needs it")
    try:
        table = pa.Table.from_pylist(list(rows), schema=outcome_schema())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: {error}; write the types of the outcomes format") from error
    return write_table(path, table)


def write_table(path: str | Path, table: pa.Table) -> Path:
    """Write a table so that a reader sees the old file or the new one, never half of one."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        pq.write_table(table, partial, compression="zstd")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def read_table(path: str | Path) -> pa.Table:
    """Read one Parquet file.

    Raises:
        DataError: it is not there, or not Parquet.
    """
    try:
        return pq.ParquetFile(path).read()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); name a Parquet file of outcomes"
        ) from error
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}: is not Parquet ({error}); make one with 'expert-composer collect'"
        ) from error


def read_outcomes(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of one outcomes file as `write_outcomes` took them."""
    rows: list[dict[str, Any]] = read_table(path).to_pylist()
    return rows
