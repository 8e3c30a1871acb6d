import asyncio
import logging
import sqlite3
import traceback
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from composer.key_store import KeyStore
from composer.keys import Key, key_id
from composer.spans import expiry, span
from experts_registry.errors import (
    ComposerError,
    DataError,
    ForbiddenError,
    KeyRefusedError,
    OptionError,
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def where(tmp_path):
    """The database; `test_postgres` puts another one in its place."""
    return tmp_path / "keys.db"


@pytest.fixture
def store(where, clock):
    with closing(KeyStore(where, clock=clock)) as store:
        yield store


def test_a_token_opens_its_key_with_all_its_limits(store):
    until = datetime.now(UTC) + timedelta(days=1)
    limits = {"rpm": 60, "tpm": 1000, "usd": 2.5, "per": "day", "expires": until, "is_admin": True}
    new = store.create("alice", models=["auto", "big"], **limits)
    assert new.token.startswith(f"ec-{new.key.id}-")
    assert store.authenticate(new.token) == new.key
    assert {name: getattr(new.key, name) for name in limits} == limits


def test_the_async_twin_says_the_same(store):
    new = store.create("alice")
    assert asyncio.run(store.aauthenticate(new.token)) == new.key
    assert asyncio.run(store.aauthenticate(new.token)) == new.key
    with pytest.raises(KeyRefusedError):
        asyncio.run(store.aauthenticate(new.token[:-1] + "!"))


def test_nothing_that_is_kept_or_shown_holds_the_token(store, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    new = store.create("alice", usd=1.0)
    secret = new.token.split("-", 2)[2]
    store.authenticate(new.token)
    store.revoke(new.token)
    shown = [repr(new), str(new), repr(store.all()), repr(vars(store)), caplog.text]
    for refused in (new.token, new.token + "x", f"ec-0000000000-{secret}"):
        with pytest.raises(KeyRefusedError) as error:
            store.authenticate(refused)
        shown += [*traceback.format_exception_only(error.value), repr(error.value)]
    for unknown in (f"ec-0000000000-{secret}", f"ec-{secret}", secret):
        with pytest.raises(DataError) as error:
            store.revoke(unknown)
        shown.append(repr(error.value))
    with pytest.raises(OptionError) as error:
        store.create(f"my key {new.token}")
    shown.append(str(error.value))
    for file in tmp_path.iterdir():
        shown.append(file.read_bytes().decode("latin-1"))
    assert len(list(tmp_path.iterdir())) >= 1
    assert not [text for text in shown if secret in text]


def refusals(store, clock):
    """Yield a name and a token that must be refused, for every reason there is."""
    good, other = store.create("good"), store.create("other")
    yield "unknown", f"ec-0123456789-{'A' * 43}"
    yield "a right secret under another id", f"ec-{other.key.id}-{good.token.split('-', 2)[2]}"
    yield "a right secret under an unknown id", f"ec-0123456789-{good.token.split('-', 2)[2]}"
    yield "a wrong secret", good.token[:-1] + ("A" if good.token[-1] != "A" else "B")
    yield "not a token", "sk-1234"
    yield "nothing", ""
    yield "a newline more", good.token + "\n"
    yield "digits of another script", good.token.replace(good.key.id[0], "\u0663", 1)
    yield "a megabyte", "ec-" + "a" * 1_000_000
    revoked = store.create("revoked")
    store.revoke(revoked.key.id)
    yield "revoked", revoked.token
    soon = datetime.now(UTC) + timedelta(seconds=0.01)
    expired = store.create("expired", expires=soon)
    while datetime.now(UTC) < soon:
        pass
    yield "expired", expired.token


def test_every_refusal_reads_the_same(store, clock):
    texts = {}
    for name, token in refusals(store, clock):
        with pytest.raises(KeyRefusedError) as error:
            store.authenticate(token)
        texts[name] = (str(error.value), error.value.status, error.value.code, error.value.args)
    assert len(texts) == 11
    assert len(set(texts.values())) == 1
    assert next(iter(texts.values()))[1:] == (401, "invalid_api_key", ())


def test_a_revocation_elsewhere_is_seen_within_five_seconds(store, clock, where):
    new = store.create("alice")
    store.authenticate(new.token)
    with closing(KeyStore(where)) as elsewhere:
        elsewhere.revoke(new.key.id)
    clock.now += 4.9
    store.authenticate(new.token)  # still believed
    clock.now += 0.1
    with pytest.raises(KeyRefusedError):
        store.authenticate(new.token)


def test_a_revocation_here_is_seen_by_the_next_request(store):
    new = store.create("alice")
    store.authenticate(new.token)
    assert store.revoke(new.key.id).revoked is not None
    with pytest.raises(KeyRefusedError):
        store.authenticate(new.token)
    assert store.revoke(new.key.id).revoked == store.all()[0].revoked  # the first one stands


def test_the_cache_reads_no_database_and_ends_at_the_expiry(store, tmp_path):
    new = store.create("alice", expires=datetime.now(UTC) + timedelta(seconds=0.2))
    store.authenticate(new.token)
    (tmp_path / "keys.db").write_bytes(b"broken")
    assert store.authenticate(new.token).name == "alice"
    while datetime.now(UTC) < new.key.expires:
        pass
    with pytest.raises(KeyRefusedError):
        store.authenticate(new.token)


def test_unknown_tokens_do_not_fill_the_memory(store):
    store.create("alice")
    for i in range(50):
        with pytest.raises(KeyRefusedError):
            store.authenticate(f"ec-{i:010x}-{'A' * 43}")
    assert len(store._read) == 0


def test_two_processes_see_each_others_keys(where):
    with (
        closing(KeyStore(where)) as one,
        closing(KeyStore(where)) as two,
    ):
        assert two.all() == []
        new = one.create("alice")
        assert two.authenticate(new.token) == new.key
        assert two.has_keys()
        two.revoke(new.key.id)
        assert not one.has_keys()


def test_reading_does_not_make_the_file(store, tmp_path):
    assert store.all() == []
    with pytest.raises(KeyRefusedError):
        store.authenticate(f"ec-0123456789-{'A' * 43}")
    assert not any(tmp_path.iterdir())


def test_scopes_allow_what_they_name(store):
    key = store.create("alice", models=["auto"]).key
    key.require_model("auto")
    with pytest.raises(ForbiddenError, match=r"may not ask for model 'big'; it may ask for auto"):
        key.require_model("big")
    with pytest.raises(ForbiddenError, match="--admin"):
        key.require_admin()
    store.create("bob", is_admin=True).key.require_admin()
    assert store.create("carol").key.allows("anything")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"rpm": 0}, "rpm: 0 is below 1"),
        ({"tpm": -5}, "tpm: -5 is below 1"),
        ({"usd": -1.0}, "usd: -1.0 is not a budget"),
        ({"usd": float("nan")}, "usd: nan is not a budget"),
        ({"per": "week"}, "per: 'week' is not one of day, month, total"),
    ],
)
def test_a_limit_out_of_range_is_refused(store, limits, message):
    with pytest.raises(OptionError, match=message):
        store.create("alice", **limits)


def test_an_unknown_id_is_told_with_the_nearest(store):
    key = store.create("alice").key
    wrong = key.id[:-1] + ("0" if key.id[-1] != "0" else "1")
    with pytest.raises(DataError, match=f"{wrong!r} is the id of no key; did you mean {key.id!r}"):
        store.revoke(wrong)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path):
    (tmp_path / "keys.db").write_bytes(b"not a database at all, but long enough" * 50)
    with closing(KeyStore(tmp_path / "keys.db")) as store:
        for use in (store.all, lambda: store.create("alice")):
            with pytest.raises(DataError, match=r"keys: .*keys\.db: .*it is no SQLite file"):
                use()


def test_a_read_only_file_can_be_read_and_refuses_writes(store, tmp_path):
    new = store.create("alice")
    url = f"sqlite:///file:{tmp_path / 'keys.db'}?mode=ro&uri=true"
    with closing(KeyStore(url)) as sealed:
        assert sealed.authenticate(new.token) == new.key
        with pytest.raises(DataError, match=r"readonly database; make it writable"):
            sealed.create("bob")


def test_a_damaged_file_is_one_clear_error(store, tmp_path):
    for i in range(200):
        store.create(f"name {i}")
    with closing(sqlite3.connect(tmp_path / "keys.db")) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    content = bytearray((tmp_path / "keys.db").read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    (tmp_path / "keys.db").write_bytes(content)
    with (
        closing(KeyStore(tmp_path / "keys.db")) as broken,
        pytest.raises(DataError, match=r"keys: .*malformed; it is damaged"),
    ):
        broken.all()


def test_a_key_says_its_state():
    now = datetime.now(UTC)
    key = Key(id="0" * 10, name="x", created=now, expires=now)
    assert key.state(now) == "expired"
    assert key.state(now - timedelta(seconds=1)) == "active"
    assert key_id("ec-xyz") is None


def test_spans_and_dates_are_read_as_people_write_them():
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert span("90s") == timedelta(seconds=90)
    assert expiry("30d", now) == now + timedelta(days=30)
    assert expiry("2026-11-25", now) == datetime(2026, 11, 26, tzinfo=UTC)
    for wrong in ("2026-11-24", "0d", "soon", "", "31-01-2027", "9999-12-31", "999999w"):
        with pytest.raises(ComposerError, match="expires"):
            expiry(wrong, now)


def test_a_key_may_read_its_stores_and_no_other():
    key = Key(id="k", name="k", created=datetime.now(UTC), stores=("handbook",))
    key.require_store("handbook")
    with pytest.raises(ForbiddenError, match="may not read store 'secret'; it may read handbook"):
        key.require_store("secret")
    assert key.readable == {"handbook"}
    assert Key(id="k", name="k", created=datetime.now(UTC)).readable is None


def test_a_key_of_before_there_were_stores_reads_all(where):
    with closing(KeyStore(where)) as store:
        token = store.create("old").token
        with store._database.writing() as connection:
            connection.execute(sa.text("ALTER TABLE keys DROP COLUMN stores"))
    with closing(KeyStore(where)) as store:
        assert store.authenticate(token).stores == ()
        new = store.create("new", stores=["handbook"])
        assert store.authenticate(new.token).stores == ("handbook",)
