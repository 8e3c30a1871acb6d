"""API keys in a database: an SQLite file beside the expert file, or any database by URL."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from composer.database import Database
from composer.keys import Key, NewKey, digest, is_same, key_id, new_token
from experts_registry.errors import DataError, KeyRefusedError, OptionError, nearest

__all__ = ["KeyStore"]

logger = logging.getLogger(__name__)

_METADATA = sa.MetaData()
_KEYS = sa.Table(
    "keys",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("rpm", sa.BigInteger),
    sa.Column("tpm", sa.BigInteger),
    sa.Column("usd", sa.Double),
    sa.Column("per", sa.String(10), nullable=False),
    sa.Column("expires", sa.String(40)),
    sa.Column("is_admin", sa.Boolean, nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("revoked", sa.String(40)),
    sa.Column("stores", sa.JSON),  # null in a key of before there were stores: it reads all
)
_LISTS = ("models", "stores")
_TIMES = ("expires", "created", "revoked")


class KeyStore:
    """Makes, lists, revokes and checks API keys.

    A key that was checked is remembered for ``fresh_seconds``: a revocation, in this process or
    another one, is seen after at most that long, and an expiry to the moment.

    Args:
        where: a database URL, or the path of an SQLite file.
        fresh_seconds: how long a key that was read from the database is believed.
        clock: seconds that only grow.
        busy_seconds: longest wait for another writer of an SQLite file.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        fresh_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        busy_seconds: float = 10.0,
    ) -> None:
        self._database = Database(where, "keys", (_KEYS,), busy_seconds=busy_seconds)
        self.where = self._database.where
        self._fresh_seconds, self._clock = fresh_seconds, clock
        # Only keys that exist come in here, so strangers cannot make it grow.
        self._read: dict[str, tuple[float, Key, str]] = {}

    # -- check ----------------------------------------------------------------------------------

    def authenticate(self, token: str) -> Key:
        """Return the key of a token.

        Raises:
            KeyRefusedError: it is unknown, wrong, expired or revoked; the error does not tell
                which, the log does.
            DataError: the database cannot be read.
        """
        public = _public(token)
        return _checked(token, self._remembered(public) or self._load(public))

    async def aauthenticate(self, token: str) -> Key:
        """Async twin of `authenticate`: only a key that is not remembered takes a thread."""
        public = _public(token)
        found = self._remembered(public) or await asyncio.to_thread(self._load, public)
        return _checked(token, found)

    # -- manage ---------------------------------------------------------------------------------

    def create(
        self, name: str, *, models: Sequence[str] = (), stores: Sequence[str] = (), **limits: Any
    ) -> NewKey:
        """Make a key; ``limits`` are the other fields of `Key`.

        Raises:
            OptionError: the name cannot be shown, or a limit is out of its range.
            DataError: the database cannot be written.
        """
        if not name.isprintable():  # keys that are stored already are read whatever they are called
            raise OptionError(f"name: {name!r} has characters that cannot be shown; leave them out")
        token = new_token()
        key = Key(
            id=key_id(token) or "",
            name=name,
            models=tuple(models),
            stores=tuple(stores),
            created=datetime.now(UTC),
            **limits,
        )
        row = asdict(key) | {"digest": digest(token)}
        row |= {what: list(row[what]) for what in _LISTS}
        row |= {what: row[what] and row[what].isoformat() for what in _TIMES}
        with self._database.writing() as connection:
            connection.execute(sa.insert(_KEYS).values(row))
        return NewKey(key, token)

    def all(self) -> list[Key]:
        """Return every key, oldest first."""
        if not self._database.exists():
            return []
        with self._database.reading() as connection:
            query = sa.select(_KEYS).order_by(_KEYS.c.created, _KEYS.c.id)
            return [_key(row) for row in connection.execute(query).mappings()]

    def require_readable(self) -> None:
        """Look whether keys could be checked now.

        Raises:
            DataError: the database cannot be read.
        """
        if self._database.exists():
            with self._database.reading() as connection:
                connection.execute(sa.select(_KEYS.c.id).limit(1)).first()

    def has_keys(self) -> bool:
        """Tell whether anybody could be let in."""
        return any(key.state() == "active" for key in self.all())

    def revoke(self, id_or_token: str) -> Key:
        """End a key; one that is revoked already stays so.

        Raises:
            DataError: there is none of that id, or the database cannot be written.
        """
        public = key_id(id_or_token) or id_or_token
        known = {key.id: key for key in self.all()}
        if public not in known:
            told = repr(public) if len(public) <= 16 else "that"  # it may be a secret
            raise DataError(
                f"keys: {self.where}: {told} is the id of no key{nearest(public, known)}; "
                "'expert-composer keys list' shows them"
            )
        now = datetime.now(UTC)
        ended = sa.update(_KEYS).values(revoked=now.isoformat())
        with self._database.writing() as connection:
            connection.execute(ended.where(_KEYS.c.id == public, _KEYS.c.revoked.is_(None)))
        self._read.pop(public, None)
        return replace(known[public], revoked=known[public].revoked or now)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    # -- inside ---------------------------------------------------------------------------------

    def _remembered(self, public: str) -> tuple[float, Key, str] | None:
        found = self._read.get(public)
        is_fresh = found is not None and self._clock() - found[0] < self._fresh_seconds
        return found if is_fresh else None

    def _load(self, public: str) -> tuple[float, Key, str] | None:
        if not self._database.exists():
            return None
        began = self._clock()  # before reading, as a revocation may come while it reads
        with self._database.reading() as connection:
            query = sa.select(_KEYS).where(_KEYS.c.id == public)
            row = connection.execute(query).mappings().first()
        if row is None:
            self._read.pop(public, None)
            return None
        self._read[public] = found = began, _key(row), row["digest"]
        return found


def _public(token: str) -> str:
    if (public := key_id(token)) is None:
        raise KeyRefusedError
    return public


def _checked(token: str, found: tuple[float, Key, str] | None) -> Key:
    if found is None:
        raise KeyRefusedError
    _, key, stored = found
    if not is_same(stored, digest(token)):
        raise KeyRefusedError
    if (state := key.state()) != "active":
        logger.info("key %s (%s) was refused: it is %s", key.id, key.name, state)
        raise KeyRefusedError
    return key


def _key(row: sa.RowMapping) -> Key:
    fields = {name: value for name, value in row.items() if name != "digest"}
    fields |= {w: fields[w] and datetime.fromisoformat(fields[w]) for w in _TIMES}
    return Key(**fields | {what: tuple(fields[what] or ()) for what in _LISTS})
