import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from composer.cells import digest_of
from composer.collect import collect
from composer.graders import Code, Exact, Grader
from composer.journal import Journal
from composer.progress import progress
from composer.queries import Query
from experts_registry.errors import (
    DataError,
    ExpertReplyError,
    ExpertUnavailableError,
    OptionError,
)
from experts_registry.schema import ExpertSpec, Limits, Price
from experts_registry.types import Generation, Prompt, Usage
from routers.data import RoutingDataset
from routers.outcomes import read_outcomes, write_outcomes


def spec(name: str, **fields) -> ExpertSpec:
    return ExpertSpec(name=name, kind="llm", backend="echo", model="echo", **fields)


def ask(n: int, grader: Grader | None = None, **sampling) -> Query:
    return Query(
        id=f"q{n}",
        prompt=Prompt.of(f"Say {n}", **sampling),
        grader=grader or Exact(answers=(f"Say {n}",)),
        category="repeat",
    )


class Caller:
    """Experts that repeat the query; counts what it is asked."""

    def __init__(self, errors=None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.errors = errors or {}
        self.most_at_once = 0
        self._now = 0

    async def __call__(self, expert: str, prompt: Prompt) -> Generation:
        self.asked.append((expert, prompt.query))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if expert in self.errors:
            raise self.errors[expert]
        return Generation(text=prompt.query, usage=Usage(prompt_tokens=10, completion_tokens=5))


def run(queries, experts, call, out, **options):
    return asyncio.run(collect(queries, {e.name: e for e in experts}, call, out, **options))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "outcomes.parquet"


def test_every_expert_is_asked_every_query_and_graded(out):
    queries = [ask(1), ask(2, Exact(answers=("no",)))]
    dear = spec("dear", price=Price(prompt=1.0, completion=2.0), active_params=5e8)
    summary = run(queries, [spec("free"), dear], Caller(), out)
    assert (summary.cells, summary.asked, summary.missing) == (4, 4, 0)
    assert summary.quality == {"free": 0.5, "dear": 0.5}
    rows = {(r["query_id"], r["expert"]): r for r in read_outcomes(out)}
    row = rows["q1", "dear"]
    assert (row["quality"], rows["q2", "dear"]["quality"]) == (1.0, 0.0)
    assert row["cost_usd"] == pytest.approx((10 * 1 + 5 * 2) / 1e6)
    assert (row["response"], row["grader"], row["category"]) == ("Say 1", "exact", "repeat")
    assert (row["prompt_tokens"], row["completion_tokens"], row["active_params"]) == (10, 5, 5e8)
    assert not out.with_name("outcomes.parquet.journal").exists()


def test_what_was_collected_trains_a_router(out):
    run([ask(n) for n in range(3)], [spec("a"), spec("b")], Caller(), out)
    assert RoutingDataset.load(out).quality.tolist() == [[1.0, 1.0]] * 3


def test_finished_cells_are_not_asked_again(out):
    queries = [ask(n) for n in range(4)]
    run(queries[:3], [spec("a")], Caller(), out)
    again = Caller()
    summary = run(queries, [spec("a"), spec("b")], again, out)
    assert sorted(again.asked) == [("a", "Say 3"), *(("b", f"Say {n}") for n in range(4))]
    assert (summary.kept, summary.asked) == (3, 5)


@pytest.mark.parametrize(
    "changed",
    [
        {"options": {"temperature": 0.5}},
        {"limits": Limits(max_tokens=9)},
        {"sha256": "0" * 64},
    ],
)
def test_a_change_that_could_change_the_answer_asks_again(out, changed):
    run([ask(1)], [spec("a")], Caller(), out)
    again = Caller()
    run([ask(1)], [spec("a", **changed)], again, out)
    assert len(again.asked) == 1


@pytest.mark.parametrize(
    ("changed", "column", "value"),
    [
        ({"price": Price(prompt=100.0)}, "cost_usd", 0.001),
        ({"active_params": 7e9}, "active_params", 7e9),
        ({"tags": {"region": "eu"}}, "quality", 1.0),
    ],
)
def test_a_price_is_updated_without_asking(out, changed, column, value):
    run([ask(1)], [spec("a")], Caller(), out)
    again = Caller()
    run([ask(1)], [spec("a", **changed)], again, out)
    assert again.asked == []
    assert read_outcomes(out)[0][column] == pytest.approx(value)


def test_a_changed_grader_grades_the_recorded_response_anew(out):
    run([ask(1)], [spec("a")], Caller(), out)
    again = Caller()
    summary = run([ask(1, Exact(answers=("no",)))], [spec("a")], again, out)
    assert (again.asked, summary.regraded) == ([], 1)
    assert read_outcomes(out)[0]["quality"] == 0.0


def test_a_changed_query_or_token_limit_asks_again(out):
    run([ask(1)], [spec("a")], Caller(), out)
    again = Caller()
    run([ask(1, max_tokens=3)], [spec("a")], again, out)
    assert len(again.asked) == 1


def test_rows_of_other_queries_experts_and_columns_stay(out):
    other = {"query_id": "z", "query": "Z?", "expert": "gone", "quality": 0.25, "split": "test"}
    mine = {"query_id": "q1", "query": "Say 1", "expert": "a", "quality": 0.0, "split": "train"}
    write_outcomes(out, [other, mine])
    run([ask(1)], [spec("a")], Caller(), out)
    rows = {r["query_id"]: r for r in read_outcomes(out)}
    assert (rows["z"]["quality"], rows["z"]["split"]) == (0.25, "test")
    assert (rows["q1"]["quality"], rows["q1"]["split"]) == (1.0, "train")


def test_a_failed_call_leaves_a_cell_without_quality_that_is_asked_again(out):
    failing = Caller({"a": ExpertReplyError("expert 'a': answered with HTML")})
    summary = run([ask(1), ask(2)], [spec("a"), spec("b")], failing, out)
    assert (summary.failed, summary.quality) == (2, {"a": None, "b": 1.0})
    bad = [row for row in read_outcomes(out) if row["expert"] == "a"]
    assert {row["quality"] for row in bad} == {None}
    assert {row["error"] for row in bad} == {"ExpertReplyError: expert 'a': answered with HTML"}
    again = Caller()
    run([ask(1), ask(2)], [spec("a"), spec("b")], again, out)
    assert {expert for expert, _ in again.asked} == {"a"}
    assert all(row["error"] is None for row in read_outcomes(out))


def test_a_failed_call_does_not_replace_a_graded_row(out):
    run([ask(1)], [spec("a")], Caller(), out)
    failing = Caller({"a": ExpertReplyError("no")})
    run([ask(1)], [spec("a", options={"new": 1})], failing, out)
    assert read_outcomes(out)[0]["quality"] == 1.0


def test_an_expert_that_only_fails_is_given_up_and_the_others_go_on(out, caplog):
    queries = [ask(n) for n in range(20)]
    dead = Caller({"dead": ExpertUnavailableError("expert 'dead': connection refused")})
    summary = run(queries, [spec("dead"), spec("fine")], dead, out, concurrency=1)
    assert summary.given_up == {"dead": "ExpertUnavailableError: expert 'dead': connection refused"}
    assert (summary.missing, summary.failed, summary.quality["fine"]) == (15, 5, 1.0)
    assert [r.message for r in caplog.records] == [
        "expert 'dead': the first 5 calls failed, so it is not asked any more: "
        "expert 'dead': connection refused"
    ]


def test_calls_in_flight_are_bounded_by_the_argument_and_by_the_expert(out, tmp_path):
    queries = [ask(n) for n in range(12)]
    wide, narrow = Caller(), Caller()
    run(queries, [spec("a")], wide, out, concurrency=4)
    run(queries, [spec("a", limits=Limits(concurrency=2))], narrow, tmp_path / "b.parquet")
    assert (wide.most_at_once, narrow.most_at_once) == (4, 2)


def test_experts_are_asked_in_one_order_that_mixes_the_file(out):
    call = Caller()
    run([ask(n) for n in range(10)], [spec("a"), spec("b")], call, out, concurrency=1)
    orders = [[q for expert, q in call.asked if expert == name] for name in "ab"]
    assert orders[0] == orders[1] != sorted(orders[0])
    assert call.asked[0][0] != call.asked[1][0]


def test_code_is_graded_while_calls_go_on(out):
    first, *others = sorted(range(6), key=lambda n: digest_of(f"q{n}"))
    slow = ask(first, Code(tests="import time; time.sleep(0.3)"))

    told, told_before_call = [], []

    async def call(expert, prompt):
        told_before_call.append(len(told))
        return Generation(text="pass" if prompt.query == f"Say {first}" else prompt.query)

    summary = run(
        [slow, *map(ask, others)], [spec("a")], call, out, concurrency=2,
        on_progress=lambda expert, tally: told.append((expert, tally.done)),
    )  # fmt: skip
    assert summary.quality == {"a": 1.0}
    assert told == [("a", n) for n in range(7)]
    # Four cells and the start were told of before the last call: the slow one was still graded.
    assert told_before_call[-1] == 5


def test_a_response_that_no_file_can_hold_is_cleaned(out):
    async def call(expert, prompt):
        return Generation(text="half \ud800")

    run([ask(1)], [spec("a")], call, out)
    assert read_outcomes(out)[0]["response"] == "half ?"


def test_a_torn_last_line_of_the_journal_is_ignored(out):
    with Journal.opened(out) as journal:
        journal.add({"query_id": "q1", "query": "Q?", "expert": "a", "quality": 1.0})
        text = out.with_name("outcomes.parquet.journal").read_text()
    out.unlink()
    out.with_name("outcomes.parquet.journal").write_text(text + text[:20])
    with Journal.opened(out) as journal:
        assert [row["quality"] for row in journal.rows.values()] == [1.0]
        assert len(read_outcomes(out)) == 1


def test_a_journal_that_is_damaged_in_the_middle_is_refused(out):
    out.with_name("outcomes.parquet.journal").write_text('{"query\n{}\n')
    with pytest.raises(DataError, match=r"journal:1: is damaged; delete this line"):
        run([ask(1)], [spec("a")], Caller(), out)


def test_a_second_writer_is_refused(out):
    with Journal.opened(out), pytest.raises(DataError, match="another collect is writing to it"):
        run([ask(1)], [spec("a")], Caller(), out)


@pytest.mark.parametrize(
    ("queries", "experts", "options", "error"),
    [
        ([], [spec("a")], {}, DataError),
        ([ask(1)], [], {}, DataError),
        ([ask(1)], [spec("a")], {"concurrency": 0}, OptionError),
    ],
)
def test_a_run_over_nothing_is_refused(out, queries, experts, options, error):
    with pytest.raises(error):
        run(queries, experts, Caller(), out, **options)


def test_something_that_is_not_parquet_is_refused_and_kept(out):
    out.write_text("precious notes")
    with pytest.raises(DataError, match="is not Parquet"):
        run([ask(1)], [spec("a")], Caller(), out)
    assert out.read_text() == "precious notes"


def test_progress_writes_lines_where_there_is_no_terminal(out, tmp_path):
    path = tmp_path / "log"
    with path.open("w") as file, progress(console=Console(file=file)) as on_progress:
        run([ask(1), ask(2)], [spec("a")], Caller(), out, on_progress=on_progress)
    assert path.read_text().startswith("collect: a 2/2 quality 1.00 (")


def test_progress_draws_bars_on_a_terminal(out, tmp_path):
    path = tmp_path / "log"
    with path.open("w") as file:
        console = Console(file=file, force_terminal=True, width=120)
        with progress(console=console) as on_progress:
            run([ask(1), ask(2)], [spec("a")], Caller(), out, on_progress=on_progress)
    assert "2/2" in path.read_text()


# -- kills: a process of its own, whose calls leave a line each ----------------------------------

SCRIPT = """
import asyncio, resource, signal, sys
from pathlib import Path
from composer.collect import collect
from composer.graders import Exact
from composer.queries import Query
from experts_registry.errors import DataError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Generation, Prompt

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
folder, stop_after, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
calls = (folder / "calls").open("a")

async def call(expert, prompt):
    if len((folder / "calls").read_text().splitlines()) >= stop_after:
        print("waiting", flush=True)
        await asyncio.sleep(3600)
    calls.write(prompt.query + "\\n")
    calls.flush()
    return Generation(text=prompt.query * size)

queries = [
    Query(id=str(n), prompt=Prompt.of(f"Say {n}"), grader=Exact(answers=("x",))) for n in range(40)
]
spec = ExpertSpec(name="a", kind="llm", backend="echo", model="echo")
if size > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    asyncio.run(collect(queries, {"a": spec}, call, folder / "o.parquet", concurrency=2))
except DataError as error:
    print(error)
    sys.exit(9)
"""


def start(folder: Path, stop_after: int, size: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(stop_after), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_without_asking_again(tmp_path, kill):
    with start(tmp_path, 15) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"  # both workers are, or will be, stuck
        journal = tmp_path / "o.parquet.journal"
        while journal.read_bytes().count(b"\n") < 15:
            time.sleep(0.01)
        process.send_signal(kill)
        process.wait(timeout=30)
    if kill == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
    if kill != signal.SIGKILL:
        assert len(read_outcomes(tmp_path / "o.parquet")) == 15
    with start(tmp_path, 1000) as process:
        assert process.wait(timeout=30) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 40
    assert len(read_outcomes(tmp_path / "o.parquet")) == 40


def test_a_full_disk_is_one_clear_error_and_what_was_written_stays(tmp_path):
    with start(tmp_path, 1000, size=3000) as process:
        shown, trouble = process.communicate(timeout=30)
    assert process.returncode == 9, trouble
    assert "o.parquet.journal: cannot be written (File too large); make room" in shown
    rows = read_outcomes(tmp_path / "o.parquet")
    assert 5 <= len(rows) < 40
    with Journal.opened(tmp_path / "o.parquet") as journal:
        assert len(journal.rows) == len(rows)


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": 2}) == digest_of(json.loads('{"b": 2, "a": 1}'))
