import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from composer.decision_log import DecisionLog, Logged
from composer.trace import Answer, Step
from experts_registry.errors import DataError, ExpertTimeoutError, OptionError
from experts_registry.types import Generation, Usage
from routers.decision import Candidate, Decision

CANARY = "canary-prompt-5f1d"
DECISION = Decision(
    experts=("big", "small"),
    scores=(0.9, 0.4),
    reason="highest predicted quality",
    candidates=(
        Candidate("big", 0.9, 0.1, 0.002, 0.8),
        Candidate("small", 0.4, 0.1, None, 0.4, "is down"),
    ),
    router="auto",
    cost_unit="usd",
    details={"category": "math", "odds": {"math": 0.9}},
)


@pytest.fixture
def where(tmp_path):
    """The database; `test_postgres` puts another one in its place."""
    return tmp_path / "decisions.db"


@pytest.fixture
def log(where):
    with closing(DecisionLog(where)) as log:
        yield log


def an_answer(**fields):
    steps = (
        Step(expert="small", seconds=0.1, error=f"ExpertTimeoutError: no answer to {CANARY}"),
        Step(
            expert="big",
            seconds=0.5,
            usage=Usage(prompt_tokens=10, completion_tokens=5),
            cost=0.001,
        ),
    )
    known = {"text": f"answer {CANARY}", "query": f"what is {CANARY}?", "model": "auto"}
    known |= {"decision": DECISION, "steps": steps, "registry": "d" * 64}
    return Answer(**known | {"generation": Generation(text=f"answer {CANARY}")} | fields)


def logged(request_id="r1", **fields):
    return Logged.of(an_answer(), request_id=request_id, key_id="0123456789", **fields)


def test_a_row_comes_back_as_it_was(log):
    row = logged(generation=3, seconds=0.75)
    log.add(row)
    log.flush()
    [step, _] = row.steps
    assert step.error == "ExpertTimeoutError"
    assert (row.cost, row.prompt_tokens, row.completion_tokens) == (0.001, 10, 5)
    assert log.get("r1") == replace(row, query=None)
    assert log.get("r2") is None


def test_a_failed_request_is_logged_with_the_class_of_its_error(log):
    error = ExpertTimeoutError(f"no answer to {CANARY}")
    log.add(Logged.ended(request_id="r1", status=504, model="auto", error=error))
    log.flush()
    row = log.get("r1")
    assert (row.status, row.error, row.expert, row.decision) == (
        504,
        "ExpertTimeoutError",
        "",
        None,
    )


def files(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_no_prompt_and_no_answer_is_in_the_file_or_in_a_log(log, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    log.add(logged())
    told = Step(expert="big", seconds=0.1, error=CANARY)  # not ``Class: text``
    log.add(Logged.ended(request_id="r", status=500, model="x", steps=[told]))
    log.add(Logged.ended(request_id="r", status=500, model="x", error=ValueError(CANARY)))
    log.flush()
    assert b"ExpertTimeoutError" in files(tmp_path)
    assert CANARY.encode() not in files(tmp_path)
    assert CANARY not in caplog.text


def test_the_query_is_kept_where_the_log_is_told_to(tmp_path):
    with closing(DecisionLog(tmp_path / "decisions.db", keep_query=True)) as log:
        log.add(logged())
        log.flush()
        assert log.get("r1").query == f"what is {CANARY}?"
    assert f"answer {CANARY}".encode() not in files(tmp_path)


KILLED = """
import sys, time
from composer.decision_log import DecisionLog, Logged
log = DecisionLog(sys.argv[1], flush_seconds=float(sys.argv[2]))
for i in range(50):
    log.add(Logged.ended(request_id=f"r{i}", status=200, model="auto"))
if sys.argv[3] == "flush":
    log.flush()
    log.add(Logged.ended(request_id="late", status=200, model="auto"))
print("ready", flush=True)
time.sleep(60)
"""


def killed(path, interval, how, wait=0.0):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(interval), how], stdout=subprocess.PIPE
    )
    with process.stdout as out:
        assert out.readline() == b"ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -9


def test_what_was_flushed_survives_a_kill_and_only_the_last_batch_is_lost(where):
    killed(where, 30, "flush")
    with closing(DecisionLog(where)) as log:
        assert len(log.recent(100)) == 50
        assert log.get("late") is None
        log.add(logged())
        log.flush()
        assert len(log.recent(100)) == 51


@pytest.mark.slow
def test_rows_are_safe_after_the_stated_interval_without_a_flush(where):
    killed(where, 0.5, "wait", wait=1.5)
    with closing(DecisionLog(where)) as log:
        assert len(log.recent(100)) == 50


def test_closing_writes_what_waits(where):
    log = DecisionLog(where, flush_seconds=60)
    log.add(logged())
    log.close()
    log.add(logged("after"))
    assert log.dropped == 1
    with closing(DecisionLog(where)) as again:
        assert [row.request_id for row in again.recent()] == ["r1"]


def test_a_full_queue_drops_counts_and_does_not_block(tmp_path):
    path = tmp_path / "decisions.db"
    row = logged()
    with closing(DecisionLog(path, waiting=10)) as log:
        log.add(row)
        log.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")  # nothing can be written meanwhile
            began = time.perf_counter()
            for i in range(2000):
                log.add(replace(row, request_id=f"more {i}"))
            took = time.perf_counter() - began
            assert log.dropped >= 2000 - 10 - 500  # the queue, and one batch of the writer
            other.execute("ROLLBACK")
        log.flush()
        assert took < 0.5
        assert len(log.recent(5000)) + log.dropped == 2001


def test_what_the_database_refuses_is_dropped_counted_and_told_once_a_batch(tmp_path, caplog):
    (tmp_path / "decisions.db").write_bytes(b"not a database at all, but long enough" * 50)
    with closing(DecisionLog(tmp_path / "decisions.db")) as log:
        for _ in range(5):
            log.add(logged())
        log.flush()
        assert log.dropped == 5
        with pytest.raises(DataError, match=r"decisions: .*it is no SQLite file"):
            log.recent()
    assert "it is no SQLite file" in caplog.text
    assert "5 rows dropped" in caplog.text


def test_a_read_only_file_is_told_and_read(log, tmp_path, caplog):
    log.add(logged())
    log.flush()
    url = f"sqlite:///file:{tmp_path / 'decisions.db'}?mode=ro&uri=true"
    with closing(DecisionLog(url)) as sealed:
        assert sealed.get("r1") is not None
        sealed.add(logged("r2"))
        sealed.flush()
        assert sealed.dropped == 1
    assert "make it writable" in caplog.text


def test_a_flush_that_cannot_end_is_an_error(tmp_path):
    with closing(DecisionLog(tmp_path / "decisions.db")) as log:
        log.add(logged())
        log.flush()
        with closing(sqlite3.connect(tmp_path / "decisions.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            log.add(logged())
            with pytest.raises(DataError, match=r"was not written within 0\.1 s"):
                log.flush(0.1)


WRITER = """
import sys
from composer.decision_log import DecisionLog, Logged
log = DecisionLog(sys.argv[1], flush_seconds=0.005)
for i in range(300):
    log.add(Logged.ended(request_id=f"{sys.argv[2]}-{i}", status=200, model=sys.argv[2]))
log.close()
assert log.dropped == 0
"""


def test_two_processes_write_at_once_and_lose_nothing(where):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(where), name]) for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with closing(DecisionLog(where)) as log:
        assert [len(log.recent(1000, model=name)) for name in ("a", "b")] == [300, 300]


def test_threads_may_log_at_once(log):
    def write(name):
        for i in range(100):
            log.add(logged(f"{name}-{i}"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert len({row.request_id for row in log.recent(1000)}) == 800


def test_recent_filters_by_each_column_and_gives_the_newest_first(log):
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="milliseconds")
    log.add(replace(logged("old"), time=hour_ago))
    log.add(replace(logged("small"), expert="small"))
    log.add(replace(logged("other"), model="big", status=502))
    log.add(replace(logged("limited"), status=429))
    log.flush()

    def found(**filters):
        return [row.request_id for row in log.recent(**filters)]

    assert found()[-1] == "old"
    assert found(limit=1) == [found()[0]]
    assert found(expert="small") == ["small"]
    assert found(model="big") == ["other"]
    assert found(status=429) == ["limited"]
    assert found(status="5xx") == ["other"]
    assert "old" not in found(since=datetime.now(UTC) - timedelta(minutes=30))
    assert found(since=datetime.now(UTC), expert="nobody") == []
    with pytest.raises(OptionError, match="is no HTTP status"):
        log.recent(status="often")


def test_pruning_deletes_what_is_older_and_no_more(log):
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="milliseconds")
    for i in range(1200):
        log.add(replace(logged(f"old {i}"), time=old))
    log.add(logged("new"))
    log.flush()
    assert log.prune(30) == 1200
    assert [row.request_id for row in log.recent()] == ["new"]
    with pytest.raises(OptionError, match="days"):
        log.prune(-1)


def test_reading_and_pruning_do_not_make_the_file(log, tmp_path):
    assert (log.recent(), log.get("x"), log.prune(1)) == ([], None, 0)
    assert not any(tmp_path.iterdir())


def test_odd_rows_do_not_cost_their_neighbours(log):
    odd = {"nan": float("nan"), "array": np.arange(3), "set": {1}, "text": "half \ud800"}
    log.add(logged("before"))
    log.add(replace(logged("odd"), decision=replace(DECISION, details=odd), cost=float("nan")))
    log.add(replace(logged("names"), model="\x1b[2J\ud800\0" * 500, prompt_tokens=10**30))
    log.add(replace(logged("error"), error="x" * 500))
    log.add(logged("before"))  # clients may repeat an id
    log.flush()
    assert log.dropped == 0
    assert len(log.recent()) == 5
    assert log.get("odd").decision.details["array"] == [0, 1, 2]
    assert len(log.get("names").model) == 255
    assert log.get("names").model.isprintable()
    assert log.get("before") is not None


def test_a_row_that_is_no_json_is_dropped_and_the_writer_goes_on(log, caplog):
    endless = {}
    endless["self"] = endless
    log.add(replace(logged("bad"), decision=replace(DECISION, details=endless)))
    log.flush()
    log.add(logged("good"))
    log.flush()
    assert (log.dropped, log.get("good") is not None) == (1, True)
    assert "RecursionError" in caplog.text
