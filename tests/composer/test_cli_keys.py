"""The verbs keys and logs, as a user types them."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

from composer.decision_log import DecisionLog
from composer.key_store import KeyStore
from composer.spending import Spending
from experts_registry.errors import KeyRefusedError
from tests.composer.test_cli import ok, run
from tests.composer.test_decision_log import logged


@pytest.fixture
def folder(registry_path):
    return registry_path.parent


def test_a_key_is_shown_once_listed_without_its_token_and_revoked(folder):
    limits = ("--rpm", 60, "--usd", 5, "--per", "day", "--expires", "30d")
    token, told = ok("keys", "create", "alice", "-m", "shaky", *limits, cwd=folder).splitlines()
    key_id = token.split("-")[1]
    assert told.startswith(f"key {key_id} of alice")
    with closing(Spending(folder / "keys.db")) as spending:
        spending.settle(spending.reserve(key_id, 0.25, budget=5, per="day"), 0.25)
    with closing(KeyStore(folder / "keys.db", fresh_seconds=0)) as store:
        assert store.authenticate(token).models == ("shaky",)
        table = ok("keys", "list", cwd=folder)
        assert token not in table
        assert table.splitlines()[1].split()[:9] == [
            *(key_id, "alice", "active", "shaky", "all", "60", "-", "0.25", "5"),
        ]
        [row] = json.loads(ok("keys", "list", "--json", cwd=folder))
        assert (row["spent_usd"], row["per"], row["state"]) == (0.25, "day", "active")
        assert "revoked" in ok("keys", "revoke", key_id, cwd=folder)
        with pytest.raises(KeyRefusedError):
            store.authenticate(token)
    assert " revoked " in ok("keys", "list", cwd=folder)


def test_json_gives_the_token_to_scripts(folder):
    made = json.loads(ok("keys", "create", "bob", "--admin", "--json", cwd=folder))
    with closing(KeyStore(folder / "keys.db")) as store:
        assert store.authenticate(made["token"]).is_admin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("keys", "create", "x", "-m", "chep"), "did you mean 'cheap'?"),
        (("keys", "create", "x", "--rpm", 0), "rpm: 0 is below 1"),
        (("keys", "create", "x", "--expires", "soon"), "write for example 2027-01-31 or 30d"),
        (("keys", "create", " "), "say whose key it is"),
        (("keys", "create", "a\nb"), "name: 'a\\nb' has characters that cannot be shown"),
        (("keys", "create", "x", "--per", "day"), "name it with --usd"),
        (("keys", "revoke", "0000000000"), "'expert-composer keys list' shows them"),
        (("logs", "nope"), "has no request 'nope'"),
        (("logs", "--since", "soon"), "write for example 15m, 1h or 30d"),
        (("logs", "--since", "999999w"), "reaches back too far"),
        (("logs", "--status", "bad"), "is no HTTP status"),
        (("logs", "--prune", 99999), "use 0 to 36500"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    done = run(*arguments, cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_yet_says_what_to_do(folder):
    assert "keys create" in ok("keys", "list", cwd=folder)
    assert "nothing was logged" in ok("logs", cwd=folder)
    assert json.loads(ok("logs", "--json", cwd=folder)) == []
    assert not list(folder.glob("*.db"))


def test_logs_prints_a_table_an_explanation_and_json(folder):
    with closing(DecisionLog(folder / "decisions.db")) as log:
        log.add(logged("r1", generation=2, seconds=0.7))
        log.add(replace(logged("r2"), status=504, expert="", error="ExpertTimeoutError"))
    head, *rows = ok("logs", cwd=folder).splitlines()
    assert head.split() == ["time", "status", "model", "expert", "calls", "tokens", "usd", "s",
                            "request"]  # fmt: skip
    assert len(rows) == 2
    [row] = ok("logs", "--status", "2xx", "--since", "1h", cwd=folder).splitlines()[1:]
    assert row.split()[1:] == ["200", "auto", "big", "2", "15", "0.001", "0.70", "r1"]
    [row] = ok("logs", "--failed", cwd=folder).splitlines()[1:]
    assert row.split()[1:4] == ["504", "auto", "ExpertTimeoutError"]
    told = ok("logs", "r1", cwd=folder)
    assert "big: highest predicted quality" in told
    assert "(is down)" in told
    assert "small: ExpertTimeoutError in 0.10 s" in told
    assert "generation 2" in told
    assert json.loads(ok("logs", "r1", "--json", cwd=folder))["decision"]["otherwise"] is None
    assert ok("logs", "--prune", 0, cwd=folder).startswith("deleted 2 rows")


def test_another_file_may_be_named_in_the_expert_file(registry_path):
    registry_path.write_text(registry_path.read_text() + "keys: data/k.db\n")
    ok("keys", "create", "alice", cwd=registry_path.parent)
    assert (registry_path.parent / "data" / "k.db").exists()
