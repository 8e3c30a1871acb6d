"""Feedback in a database: SQLite in WAL mode beside the expert file, or any database by URL.

Several processes may write at once: SQLite makes them wait for each other, ``busy_seconds`` at
most. The file is made when the first feedback is written; reading never makes it.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from composer.feedback import Feedback
from experts_registry.errors import DataError

__all__ = ["FeedbackStore", "StoredPurse"]

_NANO = 1_000_000_000  # sums are kept in whole billionths of a USD: they must not drift
_METADATA = sa.MetaData()
_FEEDBACK = sa.Table(
    "feedback",
    _METADATA,
    sa.Column("answer_id", sa.String(255), primary_key=True),
    sa.Column("time", sa.String(40), nullable=False),
    sa.Column("query_id", sa.String(64), nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("expert", sa.String(255), nullable=False),
    sa.Column("quality", sa.Double, nullable=False),
    sa.Column("grader", sa.String(255), nullable=False),
    sa.Column("composition", sa.String(255), nullable=False),
    sa.Column("category", sa.Text),
    sa.Column("cost", sa.Double),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("completion_tokens", sa.BigInteger),
    sa.Column("seconds", sa.Double),
    sa.Column("propensity", sa.Double),
    sa.Column("registry", sa.String(64), nullable=False),
)
_BY_TIME = sa.Index("feedback_by_time", _FEEDBACK.c.time)
_SPENT = sa.Table(
    "exploration",
    _METADATA,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("composition", sa.String(255), primary_key=True),
    sa.Column("nano_usd", sa.BigInteger, nullable=False),
)
_HINTS = (
    ("locked", "another program holds it; try again, or end that program"),
    ("full", "make room on the disk"),
    ("disk I/O", "make room on the disk, or see that it is sound"),
    ("readonly", "make it writable, or name another file under 'feedback:'"),
    ("unable to open", "name a file in a folder that can be written under 'feedback:'"),
    ("not a database", "it is no SQLite file; move it away, or name another under 'feedback:'"),
)


class FeedbackStore:
    """Feedback and the day's exploration spend, in one database.

    Args:
        where: a database URL, or the path of an SQLite file.
        busy_seconds: longest wait for another writer of an SQLite file.

    Raises:
        DataError: the URL or its driver is not there; later, whatever the database refuses.
    """

    def __init__(self, where: str | Path, *, busy_seconds: float = 10.0) -> None:
        is_url = "://" in str(where)
        self._file = None if is_url else Path(where)
        try:
            self._url = sa.make_url(str(where)) if is_url else sa.URL.create(
                "sqlite", database=str(where)
            )  # fmt: skip
            self.where = self._url.render_as_string(hide_password=True) if is_url else str(where)
            self._engine = sa.create_engine(self._url, **_options(self._url, busy_seconds))
        except SQLAlchemyError as error:
            raise DataError(f"feedback: {error}; write a path or a database URL") from error
        except ImportError as error:
            raise DataError(
                f"feedback: {self.where}: its driver is not installed ({error}); install it"
            ) from error
        self._busy_seconds = busy_seconds
        self._lock = threading.Lock()
        self._is_made = False

    def add(self, feedback: Feedback) -> None:
        """Store one row in place of an older one on the same answer."""
        row = asdict(feedback)
        old = sa.delete(_FEEDBACK).where(_FEEDBACK.c.answer_id == feedback.answer_id)
        with self._writing():
            for is_last in (False, True):
                try:
                    with self._engine.begin() as connection:
                        connection.execute(old)
                        connection.execute(sa.insert(_FEEDBACK).values(row))
                    return
                except IntegrityError:  # somebody else stored the same answer in between
                    if is_last:
                        raise

    def get(self, answer_id: str) -> Feedback | None:
        """Return the feedback on one answer, or None."""
        found = self._read(sa.select(_FEEDBACK).where(_FEEDBACK.c.answer_id == answer_id))
        return found[0] if found else None

    def all(self) -> list[Feedback]:
        """Return every row, oldest first."""
        return self._read(sa.select(_FEEDBACK).order_by(_FEEDBACK.c.time, _FEEDBACK.c.answer_id))

    def latest(self, limit: int) -> list[Feedback]:
        """Return the last rows, newest first."""
        order = (_FEEDBACK.c.time.desc(), _FEEDBACK.c.answer_id)
        return self._read(sa.select(_FEEDBACK).order_by(*order).limit(limit))

    def purse(self, composition: str) -> "StoredPurse":
        """Return what a composition's exploration draws on."""
        return StoredPurse(self, composition)

    def spent(self, composition: str) -> float:
        """Return the USD that exploring in a composition has reserved today (UTC)."""
        if not self._exists():
            return 0.0
        with self._told(), self._engine.connect() as connection:
            nano = connection.execute(sa.select(_SPENT.c.nano_usd).where(*_today(composition)))
            return (nano.scalar() or 0) / _NANO

    def reserve(self, composition: str, usd: float, limit: float) -> bool:
        """Add to today's sum in one step, unless that exceeds the limit."""
        nano, most = math.ceil(usd * _NANO), math.floor(limit * _NANO)
        if nano > most:
            return False
        room = _SPENT.c.nano_usd + nano <= most
        grown = sa.update(_SPENT).values(nano_usd=_SPENT.c.nano_usd + nano)
        grown = grown.where(*_today(composition), room)
        begun = sa.insert(_SPENT).values(day=_day(), composition=composition, nano_usd=nano)
        with self._writing():
            if self._execute(grown) == 1:
                return True
            try:
                return self._execute(begun) == 1
            except IntegrityError:  # today's row is there: it is full, or was made in between
                return self._execute(grown) == 1

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- inside ---------------------------------------------------------------------------------

    def _execute(self, statement: sa.Update | sa.Insert) -> int:
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount

    def _read(self, statement: sa.Select[Any]) -> list[Feedback]:
        if not self._exists():
            return []
        with self._told(), self._engine.connect() as connection:
            return [Feedback(**row) for row in connection.execute(statement).mappings()]

    def _exists(self) -> bool:
        if self._is_made or (self._file is not None and not self._file.exists()):
            return self._is_made
        with self._told():
            return sa.inspect(self._engine).has_table(_SPENT.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make the tables where they are not there yet."""
        with self._told():
            with self._lock:
                if not self._is_made:
                    self._make()
                    self._is_made = True
            yield

    def _make(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._engine.dialect.name == "sqlite":
            self._turn_wal_on()
        with self._engine.begin() as connection:
            connection.execute(CreateTable(_FEEDBACK, if_not_exists=True))
            connection.execute(CreateIndex(_BY_TIME, if_not_exists=True))
            connection.execute(CreateTable(_SPENT, if_not_exists=True))

    def _turn_wal_on(self) -> None:
        """Let readers and a writer work at once; the file remembers it."""
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
            except OperationalError:  # SQLite does not always wait here, so we do
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what a database's complaint means, without its statement and the user's text."""
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or type(error).__name__)
            hint = next((hint for sign, hint in _HINTS if sign in cause), "see that it can be used")
            raise DataError(f"feedback: {self.where}: {cause.strip()}; {hint}") from None
        except OSError as error:
            raise DataError(
                f"feedback: {self.where}: {error.strerror}; name another file under 'feedback:'"
            ) from error


@dataclass(frozen=True)
class StoredPurse:
    """A composition's `routers.exploration.Purse`, shared by every process of one database."""

    store: FeedbackStore
    composition: str

    def spent(self) -> float:
        """Return the USD that were reserved today."""
        return self.store.spent(self.composition)

    def reserve(self, usd: float, limit: float) -> bool:
        """Add to today's sum unless that would exceed the limit; tell whether it was added."""
        return self.store.reserve(self.composition, usd, limit)


def _options(url: sa.URL, busy_seconds: float) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return {"pool_pre_ping": True}
    return {"connect_args": {"timeout": busy_seconds}}


def _day() -> str:
    return datetime.now(UTC).date().isoformat()


def _today(composition: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _SPENT.c.day == _day(), _SPENT.c.composition == composition
