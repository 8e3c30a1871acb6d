"""What clients see of a database that is locked, damaged or away: a 503, and nothing of it."""

import logging
import sqlite3

import httpx
import pytest

from composer.admission import Admission
from composer.database import Database
from composer.http.app import create_app
from composer.http.errors import api_error
from composer.key_store import KeyStore
from composer.keys import NewKey
from composer.spending import Spending
from experts_registry.errors import DatabaseError
from tests.composer.http.servers import running

FILE = """\
version: 1
experts: [{name: bird, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 1}}]
decisions: logs/decisions.db
feedback: logs/feedback.db
"""
CHAT = "/v1/chat/completions"
GOOD = {"model": "bird", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def key(path) -> NewKey:
    store = KeyStore(path.parent / "keys.db")
    yield store.create("first", usd=1.0)
    store.close()


def damage(path):
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.write_bytes(b"this is no database, and it is long enough to look like one" * 100)


def assert_is_overloaded(response, path):
    error = response.json()["error"]
    found = (response.status_code, error["type"], error["code"])
    assert found == (503, "server_error", "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert str(path.parent) not in response.text
    assert ".db" not in response.text


def test_damaged_keys_let_nobody_in_and_name_no_path(path, caplog):
    damage(path.parent / "keys.db")
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        assert_is_overloaded(raw.post(CHAT, json=GOOD), path)
        assert raw.get("/health").status_code == 200
    assert str(path.parent / "keys.db") in caplog.text  # the operator is told


def test_a_budget_that_cannot_be_reserved_is_a_503(path, key):
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        headers = {"authorization": f"Bearer {key.token}"}
        assert raw.post(CHAT, json=GOOD, headers=headers).status_code == 200
        with sqlite3.connect(path.parent / "keys.db") as other:
            other.execute("DROP TABLE holds")
        other.close()
        assert_is_overloaded(raw.post(CHAT, json=GOOD, headers=headers), path)


def test_a_locked_database_is_told_apart_from_a_mistake(path, key):
    spending = Spending(path.parent / "keys.db", busy_seconds=0.05)
    admission = Admission(path.parent / "keys.db", spending=spending)
    admission.reserve(key.key, model="bird", tokens=1, usd=0.1).release()
    other = sqlite3.connect(path.parent / "keys.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseError, match="locked"):
        admission.reserve(key.key, model="bird", tokens=1, usd=0.1)
    other.close()
    admission.close()


def test_a_full_database_is_told_apart_from_a_mistake(path):
    database = Database(path.parent / "full.db", "keys", ())

    def fill():
        with database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=2")
            connection.exec_driver_sql("CREATE TABLE a AS SELECT zeroblob(40000)")

    with pytest.raises(DatabaseError, match="full") as raised:
        fill()
    database.close()
    assert api_error(raised.value).status == 503


@pytest.mark.parametrize("how", ["damaged", "no folder"])
def test_a_decision_log_that_cannot_be_written_fails_no_request(path, caplog, how):
    if how == "damaged":
        (path.parent / "logs").mkdir()
        damage(path.parent / "logs" / "decisions.db")
    else:
        (path.parent / "logs").write_text("a file where the folder should be")
    with (
        caplog.at_level(logging.WARNING),
        running(create_app(path)) as url,
        httpx.Client(base_url=url, trust_env=False) as raw,
    ):
        for stream in (False, True):
            response = raw.post(CHAT, json={**GOOD, "stream": stream})
            assert response.status_code == 200
        if how == "damaged":
            request_id = response.headers["x-request-id"]
            assert_is_overloaded(raw.get(f"/v1/decisions/{request_id}"), path)
    assert "rows dropped" in caplog.text
