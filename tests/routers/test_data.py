import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experts_registry.errors import DataError, OptionError
from routers.data import RoutingDataset
from routers.outcomes import read_outcomes, write_outcomes

NAN = float("nan")


def small(**changes):
    values = {
        "queries": ("one", "two"),
        "experts": ("a", "b", "c"),
        "quality": np.array([[0, 1, 0.5], [NAN, 1, 0]]),
    }
    return RoutingDataset(**(values | changes))


def rows(*cells):
    """Rows of (query, expert, quality) and whatever else is named."""
    return [
        {"query_id": q, "query": f"text of {q}", "expert": e, "quality": s} | more
        for q, e, s, more in cells
    ]


def test_cost_is_unknown_and_ids_are_row_numbers_by_default():
    data = small()
    assert np.isnan(data.cost).all()
    assert data.ids == ("0", "1")
    assert data.categories == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"quality": np.zeros((2, 2))},
            r"quality: shape \(2, 2\) does not fit 2 queries and 3 exp",
        ),
        ({"quality": np.array([[0, 1, 1], [0, 1.5, 0]])}, r"row 1 \(query '1'\), expert 'b': 1.5"),
        ({"quality": np.array([[0, 1, 1], [0, np.inf, 0]])}, r"expert 'b': inf is out of range"),
        ({"quality": [["x", 1, 1], [0, 1, 0]]}, r"quality: is not an array of numbers"),
        ({"cost": np.array([[0, 0, -1], [0, 0, 0]])}, r"cost: row 0 .*expert 'c': -1 is out of"),
        ({"experts": ("a", "b", "a")}, r"experts: 'a' comes twice"),
        ({"ids": ("q", "q")}, r"ids: 'q' comes twice"),
        ({"category": ("x",)}, r"category: has 1 entries for 2 queries"),
        ({"queries": ("one", "  ")}, r"queries: row 1 \('1'\) is empty"),
        ({"split": ("train", "tset")}, r"split: 'tset' is not one of .*did you mean 'test'"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(changes, message):
    with pytest.raises(DataError, match=message):
        small(**changes)


def test_nobody_can_write_to_the_arrays():
    with pytest.raises(ValueError, match="read-only"):
        small().quality[0, 0] = 1


def test_the_digest_depends_on_content_only():
    assert small().digest == small().digest
    assert small().digest != small(category=("x", "")).digest
    assert small().digest != small(quality=np.array([[0, 1, 0.5], [0.1, 1, 0]])).digest


def test_rows_and_columns_can_be_chosen():
    data = small(category=("x", "y"), ids=("p", "q"))
    assert data.select([1]).ids == ("q",)
    assert data.select(np.array([True, False])).category == ("x",)
    assert len(data.select([])) == 0
    assert data.only(["c", "a"]).quality[0].tolist() == [0.5, 0]
    assert data.without("b").experts == ("a", "c")
    with pytest.raises(DataError, match=r"expert 'd' is not one of a, b, c"):
        data.without("d")


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataError, match="every quality is missing"):
        small(quality=np.full((2, 3), NAN)).require_outcomes()
    with pytest.raises(DataError, match="there are no queries"):
        small(queries=(), quality=np.empty((0, 3))).require_outcomes()


def test_saving_and_loading_gives_the_same_table(tmp_path):
    data = small(
        cost=np.array([[0.1, 0.2, NAN], [0, 0.5, 1]]),
        category=("x", ""),
        ids=("p", "q"),
        split=("train", "test"),
    )
    path = data.save(tmp_path / "folder" / "outcomes.parquet")
    assert RoutingDataset.load(path).digest == data.digest
    assert RoutingDataset.load(path.parent).digest == data.digest
    assert [p.name for p in path.parent.iterdir()] == ["outcomes.parquet"]


@pytest.mark.parametrize("unit", ["", "B params", "s"])
def test_every_cost_unit_survives(tmp_path, unit):
    data = small(cost=np.full((2, 3), 2.0 if unit else 0.0), cost_unit=unit)
    column = "seconds" if unit == "s" else None
    loaded = RoutingDataset.load(data.save(tmp_path / "o.parquet"), cost=column)
    assert (loaded.cost_unit, loaded.cost.tolist()) == (unit, data.cost.tolist())


def test_cost_is_usd_where_anything_costs_any_else_active_parameters(tmp_path):
    free = {"cost_usd": 0.0, "active_params": 0.5e9}
    path = write_outcomes(
        tmp_path / "o.parquet", rows(("q", "a", 1.0, free), ("q", "b", 0.0, free))
    )
    assert RoutingDataset.load(path).cost.tolist() == [[0.5, 0.5]]
    assert RoutingDataset.load(path).cost_unit == "B params"
    assert RoutingDataset.load(path, cost="usd").cost.tolist() == [[0, 0]]
    with pytest.raises(OptionError, match=r"cost: 'active_param' .*did you mean 'active_params'"):
        RoutingDataset.load(path, cost="active_param")


def test_outcome_rows_come_back_as_they_were_written(tmp_path):
    written = rows(("q", "a", None, {"error": "timed out"}), ("q", "b", 0.5, {"prompt_tokens": 3}))
    read = read_outcomes(write_outcomes(tmp_path / "o.parquet", written))
    assert [{k: v for k, v in row.items() if v is not None} for row in read] == [
        {k: v for k, v in row.items() if v is not None} for row in written
    ]


def test_a_row_of_a_wrong_type_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"o\.parquet"):
        write_outcomes(tmp_path / "o.parquet", rows(("q", "a", "good", {})))
    with pytest.raises(DataError, match="row 0, expert: is missing"):
        write_outcomes(tmp_path / "o.parquet", [{"query_id": "q", "query": "t"}])


def test_a_graded_row_replaces_one_that_failed(tmp_path):
    path = write_outcomes(
        tmp_path / "o.parquet",
        rows(("q", "a", 0.5, {}), ("q", "a", None, {"error": "late"}), ("q", "a", 0.5, {})),
    )
    assert RoutingDataset.load(path).quality.tolist() == [[0.5]]


TABLE = {"query_id": ["p", "p"], "query": ["x", "x"], "expert": ["a", "b"], "quality": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": [0.0, 1.5]}, r"o.parquet: row 1, quality: 1.5 is out of range; .*\[0, 1\]"),
        ({"quality": [NAN, 1.0]}, r"row 0, quality: nan is out of range; .*or null where unknown"),
        ({"quality": ["good", "bad"]}, r"row 0, quality: 'good' is not a number"),
        ({"quality": None}, r"o.parquet: column 'quality' is missing"),
        ({"cost_usd": [0.1, -2.0]}, r"row 1, cost_usd: -2 is out of range"),
        ({"query": ["x", "y"]}, r"row 1, query: 'y' differs from 'x'.* for 'p'; give each query"),
        ({"query": [1, 2]}, r"row 0, query: holds int64, not text"),
        ({"query": ["x", None]}, r"row 1, query: is missing"),
        ({"expert": ["a", None]}, r"row 1, expert: is missing"),
        ({"expert": ["a", "a"]}, r"row 1, quality: another outcome of query 'p', expert 'a'"),
        ({"category": ["m", "n"]}, r"row 1, category: 'n' differs from 'm'"),
    ],
)
def test_a_wrong_file_is_refused_with_file_row_and_column(tmp_path, changes, message):
    columns = {k: v for k, v in (TABLE | changes).items() if v is not None}
    pq.write_table(pa.table(columns), tmp_path / "o.parquet")
    with pytest.raises(DataError, match=message):
        RoutingDataset.load(tmp_path / "o.parquet")


def test_other_columns_and_number_types_are_fine(tmp_path):
    columns = TABLE | {"query_id": [7, 7], "quality": [True, False], "notes": [[1], [2]]}
    columns["expert"] = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "o.parquet")
    data = RoutingDataset.load(tmp_path / "o.parquet")
    assert (data.ids, data.quality.tolist()) == (("7",), [[1.0, 0.0]])


def test_the_row_of_a_second_file_is_counted_from_its_own_start(tmp_path):
    pq.write_table(pa.table(TABLE), tmp_path / "1.parquet")
    pq.write_table(
        pa.table(TABLE | {"query_id": ["q", "q"], "quality": [0.0, 2.0]}), tmp_path / "2.parquet"
    )
    with pytest.raises(DataError, match=r"2.parquet: row 1, quality: 2 is out"):
        RoutingDataset.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("o.parquet", b"", "o.parquet"),
        ("o.parquet", b"query,expert\n", "is not Parquet"),
        ("o.jsonl", b'{"qid": "p"\n', r"o.jsonl:1: is not JSON"),
        ("o.jsonl", b"[1]\n", r"o.jsonl:1: is not a JSON object"),
        ("o.jsonl", b"\xff\xfe", "UTF-8 JSON lines are expected"),
        (
            "o.jsonl",
            b'{"qid": "p", "query": "x", "scores": [1]}\n',
            r"o.jsonl:1, scores: is not an ob",
        ),
        (
            "o.jsonl",
            b'{"qid": "p", "query": "x", "scores": {"a": NaN}}\n',
            r"o.jsonl:1, scores: nan",
        ),
        ("o.jsonl", b'{"query": "x", "scores": {"a": 1}}\n', r"o.jsonl:1, qid: is missing"),
        ("o.jsonl", b"", r"o.jsonl: holds no rows"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        RoutingDataset.load(tmp_path / name)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.parquet: cannot be read"):
        RoutingDataset.load(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds neither Parquet files nor"):
        RoutingDataset.load(tmp_path)


def test_an_empty_table_is_refused(tmp_path):
    write_outcomes(tmp_path / "o.parquet", [])
    with pytest.raises(DataError, match="holds no rows"):
        RoutingDataset.load(tmp_path / "o.parquet")


def test_json_lines_are_read(tmp_path):
    lines = [
        {"qid": "p", "query": "x", "domain": "m", "split": "test", "scores": {"a": 1, "b": None},
         "cost": {"a": 0.5}, "usage": {"a": {"latency_ms": 1500}}},
        {"qid": "q", "query": "y", "scores": {"b": 0.25}},
    ]  # fmt: skip
    path = tmp_path / "o.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    data = RoutingDataset.load(path)
    assert (data.experts, data.category, data.split) == (("a", "b"), ("m", ""), ("test", ""))
    assert np.array_equal(data.quality, [[1, NAN], [NAN, 0.25]], equal_nan=True)
    assert (data.cost[0, 0], data.cost_unit) == (0.5, "usd")
    assert RoutingDataset.load(path, cost="seconds").cost[0, 0] == 1.5


def public(folder, outcomes):
    query = {"query_id": "p", "query": "x", "task": "m", "split": "test", "options": [1]}
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(json.dumps(query).encode()))
    (folder / "outcomes.csv.gz").write_bytes(gzip.compress(outcomes.encode()))
    return folder


def test_a_folder_of_public_logs_is_read(tmp_path):
    data = RoutingDataset.load(
        public(tmp_path, "query_id,model,score,cost_usd\np,a,1,0.5\np,b,,0\n")
    )
    assert (data.categories, data.split, data.cost_unit) == (("m",), ("test",), "usd")
    assert np.array_equal(data.quality, [[1, NAN]], equal_nan=True)


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("query_id,model,score\nz,a,1\n", r"outcomes.csv.gz:2, query_id: 'z' is not among"),
        ("query_id,model,score\np,a,7\n", r"outcomes.csv.gz:2, score: 7 is out of range"),
        ("query_id,model,scor\np,a,1\n", r"column 'score' is missing.*did you mean 'scor'"),
    ],
)
def test_a_wrong_public_log_is_refused_in_its_own_words(tmp_path, csv, message):
    with pytest.raises(DataError, match=message):
        RoutingDataset.load(public(tmp_path, csv))
