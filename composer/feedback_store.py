"""Feedback in a database: an SQLite file beside the expert file, or any database by URL."""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from composer.database import Database
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
sa.Index("feedback_by_time", _FEEDBACK.c.time)
_SPENT = sa.Table(
    "exploration",
    _METADATA,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("composition", sa.String(255), primary_key=True),
    sa.Column("nano_usd", sa.BigInteger, nullable=False),
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
        tables = (_FEEDBACK, _SPENT)
        self._database = Database(where, "feedback", tables, busy_seconds=busy_seconds)
        self.where = self._database.where

    def add(self, feedback: Feedback) -> None:
        """Store one row in place of an older one on the same answer."""
        row = asdict(feedback)
        old = sa.delete(_FEEDBACK).where(_FEEDBACK.c.answer_id == feedback.answer_id)
        for is_last in (False, True):
            try:
                with self._database.writing() as connection:
                    connection.execute(old)
                    connection.execute(sa.insert(_FEEDBACK).values(row))
                return
            except IntegrityError:  # somebody else stored the same answer in between
                if is_last:
                    raise DataError(
                        f"feedback: {self.where}: answer {feedback.answer_id!r} is being graded "
                        "over and over by others; try again"
                    ) from None

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
        if not self._database.exists():
            return 0.0
        with self._database.reading() as connection:
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
        if self._execute(grown) == 1:
            return True
        try:
            return self._execute(begun) == 1
        except IntegrityError:  # today's row is there: it is full, or was made in between
            return self._execute(grown) == 1

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    # -- inside ---------------------------------------------------------------------------------

    def _execute(self, statement: sa.Update | sa.Insert) -> int:
        with self._database.writing() as connection:
            return connection.execute(statement).rowcount

    def _read(self, statement: sa.Select[Any]) -> list[Feedback]:
        if not self._database.exists():
            return []
        with self._database.reading() as connection:
            return [Feedback(**row) for row in connection.execute(statement).mappings()]


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


def _day() -> str:
    return datetime.now(UTC).date().isoformat()


def _today(composition: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _SPENT.c.day == _day(), _SPENT.c.composition == composition
