"""Read outcomes from the formats they come in, and say exactly where one is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from experts_registry.errors import DataError, OptionError, nearest
from experts_registry.types import FloatArray
from routers.data import CostColumn, RoutingDataset
from routers.formats import NUMBERS, TEXTS, Part, read_jsonl, read_parquet, read_public
from routers.outcomes import outcome_schema, write_table

__all__ = ["load", "save"]

IntArray = NDArray[np.integer[Any]]
# What a dataset calls its cost: the column that holds it, and how many of it make one unit.
UNITS = {"": ("cost_usd", 1.0), "usd": ("cost_usd", 1.0), "s": ("seconds", 1.0)} | {
    "B params": ("active_params", 1e9)
}


def load(path: Path, cost: CostColumn | None) -> RoutingDataset:
    """Read outcomes in whatever format they are; see `RoutingDataset.load`."""
    if cost is not None and cost not in get_args(CostColumn):
        known = get_args(CostColumn)
        raise OptionError(f"cost: {cost!r} is not one of {', '.join(known)}{nearest(cost, known)}")
    if path.is_dir() and (path / "queries.jsonl.gz").exists():
        cells, queries = read_public(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        cells, queries = read_jsonl(path)
    else:
        cells = queries = read_parquet(path)
    if not len(cells.table):
        raise DataError(f"{path}: holds no rows; collect some outcomes first")
    return _assemble(_typed(cells), _typed(queries), cost)


def save(data: RoutingDataset, path: Path) -> Path:
    """Write a dataset as outcomes; see `RoutingDataset.save`."""
    if data.cost_unit not in UNITS:
        raise DataError(f"cost_unit: {data.cost_unit!r} is not one of usd, B params, s")
    column, scale = UNITS[data.cost_unit]
    n, m = data.quality.shape
    texts = {"query_id": data.ids, "query": data.queries} | {
        "category": data.category,
        "split": data.split,
    }
    columns: dict[str, Any] = {
        name: pa.array(values).take(np.repeat(np.arange(n), m)) for name, values in texts.items()
    }
    columns["expert"] = pa.array(data.experts * n, pa.string())
    columns["quality"] = pa.array(data.quality.ravel(), from_pandas=True)
    columns[column] = pa.array(data.cost.ravel() * scale, from_pandas=True)
    schema = outcome_schema()
    arrays = [
        columns[f.name].cast(f.type) if f.name in columns else pa.nulls(n * m, f.type)
        for f in schema
    ]
    return write_table(path, pa.Table.from_arrays(arrays, schema=schema))


# -- what every format must hold ----------------------------------------------------------------


def _typed(part: Part) -> Part:
    """Return the columns we read, cast to text and float64."""
    table, columns = part.table, {}
    for name in (*TEXTS, *NUMBERS):
        if name in table.column_names:
            check = _text if name in TEXTS else _number
            columns[name] = check(part, name, table[name])
        else:
            kind = pa.string() if name in TEXTS else pa.float64()
            columns[name] = pa.chunked_array([pa.nulls(len(table), kind)])
    return replace(part, table=pa.table(columns))


def _text(part: Part, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if not is_text and not (name == "query_id" and pa.types.is_integer(kind)):
        raise part.error(0, name, f"holds {kind}, not text; write text")
    return column.cast(kind).cast(pa.string())


def _number(part: Part, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if not is_number and not pa.types.is_boolean(kind):
        row = 0 if column.null_count == 0 else int(np.argmin(column.is_null().to_numpy()))
        raise part.error(row, name, f"{column[row].as_py()!r} is not a number; write a number")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    column = column.cast(pa.float64())
    top = 1.0 if name == "quality" else np.inf
    values = column.to_numpy()
    wrong = column.is_valid().to_numpy() & ~((values >= 0) & (values <= top) & np.isfinite(values))
    if wrong.any():
        row = int(np.argmax(wrong))
        rule = "write a number in [0, 1]" if name == "quality" else "write a number of at least 0"
        raise part.error(
            row, name, f"{values[row]:g} is out of range; {rule}, or null where unknown"
        )
    return column


# -- from rows to a table -----------------------------------------------------------------------


def _assemble(cells: Part, queries: Part, cost: CostColumn | None) -> RoutingDataset:
    for part, names in ((cells, ("query_id", "expert")), (queries, ("query_id", "query"))):
        for name in names:
            if part.table[name].null_count:
                row = int(np.argmax(part.table[name].is_null().to_numpy()))
                raise part.error(row, name, "is missing; write a text")
    query, ids = _codes(queries.table["query_id"])
    row = pc.index_in(cells.table["query_id"], value_set=pa.array(ids)).to_numpy()
    if np.isnan(row).any():
        bad = int(np.argmax(np.isnan(row)))
        name = cells.table["query_id"][bad].as_py()
        raise cells.error(bad, "query_id", f"{name!r} is not among the queries; add its text")
    column, experts = _codes(cells.table["expert"])
    values, unit = _priced(cells.table, cost)
    quality, price = _pivot(cells, row.astype(np.intp), column, values, (len(ids), len(experts)))
    return RoutingDataset(
        queries=_per_query(queries, "query", query, ids),
        experts=tuple(experts),
        quality=quality,
        cost=price,
        category=_per_query(queries, "category", query, ids),
        ids=tuple(ids),
        split=_per_query(queries, "split", query, ids),
        cost_unit=unit,
    )


def _codes(column: pa.ChunkedArray) -> tuple[IntArray, list[str]]:
    """Number the distinct texts in order of appearance."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(), coded.dictionary.to_pylist()


def _per_query(part: Part, name: str, query: IntArray, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the one text of each query; two different ones are an error."""
    column = part.table[name].combine_chunks().fill_null("")
    code, texts = _codes(pa.chunked_array([column]))
    given = np.flatnonzero(np.array([bool(text) for text in texts])[code]) if texts else query[:0]
    first = np.full(len(ids), -1)
    first[query[given][::-1]] = code[given][::-1]
    if (clash := code[given] != first[query[given]]).any():
        row = int(given[np.argmax(clash)])
        raise part.error(
            row,
            name,
            f"{texts[code[row]][:60]!r} differs from {texts[first[query[row]]][:60]!r}, "
            f"given before for {ids[query[row]]!r}; give each query its own id",
        )
    return tuple(texts[i] if i >= 0 else "" for i in first)


def _priced(table: pa.Table, cost: CostColumn | None) -> tuple[FloatArray, str]:
    """Return the cost of every row, and its unit."""
    usd, params, seconds = (table[n].to_numpy() for n in ("cost_usd", "active_params", "seconds"))
    if cost == "usd" or (cost is None and (usd > 0).any()):
        return usd, "usd"
    if cost == "active_params" or (cost is None and not np.isnan(params).all()):
        return params / 1e9, "B params"
    return (seconds, "s") if cost == "seconds" else (usd, "")


def _pivot(
    cells: Part, row: IntArray, column: IntArray, cost: FloatArray, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Lay the rows out as (n, m); a graded row replaces one that failed."""
    value = cells.table["quality"].to_numpy()
    flat = row * shape[1] + column
    graded = np.flatnonzero(~np.isnan(value))
    order = graded[np.argsort(flat[graded], kind="stable")]
    again = flat[order][1:] == flat[order][:-1]
    pair = np.stack([value, np.nan_to_num(cost, nan=-1)])[:, order]
    if (differs := again & (pair[:, 1:] != pair[:, :-1]).any(axis=0)).any():
        bad = int(order[1:][np.argmax(differs)])
        name, expert = (cells.table[n][bad].as_py() for n in ("query_id", "expert"))
        raise cells.error(
            bad,
            "quality",
            f"another outcome of query {name!r}, expert {expert!r}; keep one of them",
        )
    quality, price = np.full(shape, np.nan), np.full(shape, np.nan)
    price.flat[flat] = cost
    quality.flat[flat[graded]], price.flat[flat[graded]] = value[graded], cost[graded]
    return quality, price
