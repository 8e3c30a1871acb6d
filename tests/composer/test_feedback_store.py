import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from composer.feedback import Feedback
from composer.feedback_store import FeedbackStore
from experts_registry.errors import DataError
from routers.exploration import Purse


@pytest.fixture
def store(tmp_path):
    with closing(FeedbackStore(tmp_path / "feedback.db")) as store:
        yield store


def graded(quality=1.0, query="what?", expert="small", **fields):
    return Feedback.about(query, expert, quality, **fields)


WRITER = """
import sys
from composer.feedback import Feedback
from composer.feedback_store import FeedbackStore
store = FeedbackStore(sys.argv[1])
for i in range(40):
    store.add(Feedback.about(f"query {i}", sys.argv[2], 1.0))
    store.purse("auto").reserve(0.01, 0.505)
"""


def test_several_processes_may_write_at_once_and_share_the_purse(tmp_path):
    path = tmp_path / "feedback.db"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"expert-{i}"]) for i in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    with closing(FeedbackStore(path)) as store:
        assert len(store.all()) == 120
        assert store.spent("auto") == pytest.approx(0.5)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_threads_may_write_the_same_answer(store):
    row = graded()
    threads = [
        threading.Thread(target=store.add, args=(replace(row, quality=i / 8),)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.all()) == 1


def test_reading_does_not_make_the_file(store, tmp_path):
    assert (store.all(), store.get("x"), store.spent("auto")) == ([], None, 0.0)
    assert not any(tmp_path.iterdir())


def test_the_latest_come_first(store):
    for i in range(5):
        store.add(graded(query=f"query {i}"))
    assert [r.query for r in store.latest(2)] == ["query 4", "query 3"]


def test_a_purse_keeps_its_sum_over_restarts_and_apart_from_others(tmp_path):
    for expected in (True, True, False):
        with closing(FeedbackStore(tmp_path / "feedback.db")) as store:
            purse: Purse = store.purse("auto")
            assert purse.reserve(0.1, 0.25) is expected
    with closing(FeedbackStore(tmp_path / "feedback.db")) as store:
        assert store.spent("auto") == 0.2
        assert store.purse("other").reserve(0.25, 0.25)
        assert not store.purse("third").reserve(0.26, 0.25)


def test_a_locked_file_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "feedback.db"
    with closing(FeedbackStore(path, busy_seconds=0.1)) as store:
        store.add(graded())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(DataError, match=r"feedback\.db: database is locked; another prog"):
                store.add(graded())
        store.add(graded())


@contextmanager
def a_full_disk(size):
    """Let no file grow beyond a size: SQLite sees what it sees on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_and_costs_no_older_feedback(store, tmp_path):
    store.add(graded(query="older"))
    with (
        a_full_disk((tmp_path / "feedback.db-wal").stat().st_size),
        pytest.raises(DataError, match="make room on the disk"),
    ):
        store.add(graded(query="x" * 50_000))
    assert [r.query for r in store.all()] == ["older"]
    store.add(graded(query="newer"))
    assert len(store.all()) == 2


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "feedback.db").write_text("not a database at all, but long enough to look" * 50)
    with pytest.raises(DataError, match="not a database; it is no SQLite file"):
        FeedbackStore(tmp_path / "feedback.db").add(graded())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="feedback"):
        FeedbackStore(tmp_path / "file" / "feedback.db").add(graded())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://x", "nonsense"),
        ("postgresql+nodriver://me:hush@host/db", "nodriver"),
        ("://", "write a path or a database URL"),
    ],
)
def test_a_wrong_url_is_an_error_that_tells_no_password(url, message):
    with pytest.raises(DataError, match=message) as error:
        FeedbackStore(url)
    assert "hush" not in str(error.value)


def test_text_that_no_database_takes_is_stored_as_far_as_it_goes(store):
    store.add(graded(query="half \ud800 and nul \0"))
    assert store.all()[0].query == "half ? and nul �"
