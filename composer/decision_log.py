"""The decision log: one row a request, written in the background, in SQLite or any database.

A request hands its row to a bounded queue and goes on. A thread writes what has come in, one
transaction every ``flush_seconds``. When the process is killed, the rows of that last interval and
of the transaction in the making are lost; a power cut may also cost what the system had not yet
put on the disk.
"""

import itertools
import logging
import queue
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from composer.database import Database
from composer.decision_sums import Sums, calls_by_expert, requests_by_model, sums_of
from composer.decisions import Logged
from experts_registry.errors import DataError, OptionError

__all__ = ["DecisionLog", "Logged"]

logger = logging.getLogger(__name__)

NamedSums = tuple[str, str, Sums]  # a minute, a name, and what it came to

_BATCH = 500  # most rows of a transaction
_METADATA = sa.MetaData()
_ROWS = sa.Table(
    "decisions",
    _METADATA,
    sa.Column("row", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("request_id", sa.String(255), nullable=False, index=True),
    sa.Column("time", sa.String(40), nullable=False, index=True),
    sa.Column("key_id", sa.String(255), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("expert", sa.String(255), nullable=False),
    sa.Column("router", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("decision", sa.Text),  # the rest of it, candidates included, as JSON
    sa.Column("steps", sa.Text, nullable=False),  # as JSON
    sa.Column("cost", sa.Double, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("error", sa.String(255)),
    sa.Column("registry", sa.String(255), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("query", sa.Text),
)
_SHOWN = [column for column in _ROWS.c if column.name != "row"]


class DecisionLog:
    """What was decided, and what came of it.

    Args:
        where: a database URL, or the path of an SQLite file.
        keep_query: also keep the query of every request.
        flush_seconds: the longest that a row waits in memory, while the database takes them.
        waiting: the most rows that wait; what comes beyond is dropped and counted.
        busy_seconds: longest wait for another writer of an SQLite file.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        keep_query: bool = False,
        flush_seconds: float = 0.5,
        waiting: int = 10_000,
        busy_seconds: float = 10.0,
    ) -> None:
        self._database = Database(
            where, "decisions", (_ROWS,), busy_seconds=busy_seconds, is_synced=False
        )
        self.where = self._database.where
        self._keep_query, self._flush_seconds = keep_query, flush_seconds
        self._queue: queue.Queue[Logged | threading.Event] = queue.Queue(waiting)
        self._batch: list[Logged | threading.Event] = []  # what the thread holds
        self._dropped = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._hurry = threading.Event()  # somebody waits for the rows
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """How many rows were not written: the queue was full, or the database refused them."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """How many rows are not written yet."""
        return len(self._batch) + self._queue.qsize()

    @property
    def lag(self) -> float:
        """Seconds since the oldest row that is not written yet was added."""
        with self._queue.mutex:
            waiting = [*self._batch, *itertools.islice(self._queue.queue, 2)]
        times = [each.time for each in waiting if isinstance(each, Logged)]
        if not times:
            return 0.0
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(times[0])).total_seconds())

    def add(self, logged: Logged) -> None:
        """Log a request; never waits and never fails."""
        try:
            if self._is_closed:
                raise queue.Full
            self._queue.put_nowait(logged)
        except queue.Full:
            self._drop(1)
            return
        if self._thread is None:
            self._begin()

    def flush(self, seconds: float = 30.0) -> None:
        """Wait until everything that was added so far is written or dropped.

        Raises:
            DataError: that takes too long.
        """
        written = threading.Event()
        try:
            if self._thread is not None:
                self._queue.put(written, timeout=seconds)
                self._hurry.set()
                if not written.wait(seconds):
                    raise queue.Full
        except queue.Full:
            raise DataError(
                f"decisions: {self.where}: was not written within {seconds:g} s; see what holds it"
            ) from None

    def close(self) -> None:
        """Write what waits, and end."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            with suppress(DataError):
                self.flush()
            thread.join(1.0)
        self._database.close()

    # -- read -----------------------------------------------------------------------------------

    def get(self, request_id: str) -> Logged | None:
        """Return a request, the last one of that id; None where there is none."""
        found = self._select(sa.select(*_SHOWN).where(_ROWS.c.request_id == request_id), 1)
        return found[0] if found else None

    def recent(
        self,
        limit: int = 20,
        *,
        expert: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        status: str | int | None = None,
        failed: bool = False,
    ) -> list[Logged]:
        """Return the last requests, newest first.

        Args:
            limit: most rows.
            expert: who answered.
            model: what was asked for.
            since: not before this; aware of its time zone.
            status: an HTTP status, or a class of them: ``5xx``.
            failed: only what did not end well: statuses from 400 on.
        """
        query = sa.select(*_SHOWN)
        for column, value in ((_ROWS.c.expert, expert), (_ROWS.c.model, model)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(_ROWS.c.time >= _moment(since))
        if status is not None:
            query = query.where(_ROWS.c.status.between(*_statuses(str(status))))
        if failed:
            query = query.where(_ROWS.c.status >= 400)
        return self._select(query, limit)

    def sums(self, since: str) -> tuple[list[NamedSums], list[NamedSums]]:
        """Return sums by minute since a moment: of the requests by model, the calls by expert.

        Args:
            since: in UTC, as the log writes times; ``2026-11-25T16:21`` for example.
        """
        if not self._database.exists():
            return [], []
        with self._database.reading() as connection:
            dialect = connection.dialect.name
            queries = requests_by_model(_ROWS, since), calls_by_expert(_ROWS, since, dialect)
            requests, calls = ([*sums_of(connection.execute(query))] for query in queries)
            return requests, calls

    def prune(self, days: float) -> int:
        """Delete what is older; return how many rows that were.

        The rows go in small transactions, so that writers need not wait for long.
        """
        if not 0 <= days <= 36_500:
            raise OptionError(f"days: {days} is not a number of days; use 0 to 36500")
        if not self._database.exists():
            return 0
        before = _moment(datetime.now(UTC) - timedelta(days=days))
        old = sa.select(_ROWS.c.row).where(_ROWS.c.time < before).limit(1000)
        gone = 0
        while True:
            with self._database.writing() as connection:
                deleted = connection.execute(sa.delete(_ROWS).where(_ROWS.c.row.in_(old))).rowcount
            gone += deleted
            if deleted < 1000:
                return gone

    def _select(self, query: sa.Select[Any], limit: int) -> list[Logged]:
        if not self._database.exists():
            return []
        with self._database.reading() as connection:
            newest = (_ROWS.c.time.desc(), _ROWS.c.row.desc())
            rows = connection.execute(query.order_by(*newest).limit(limit)).mappings()
            return [
                Logged.of_row({str(name): value for name, value in row.items()}) for row in rows
            ]

    # -- write ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not (self._is_closed and self._queue.empty()):
            with suppress(queue.Empty):
                self._batch = [self._queue.get(timeout=0.5)]
                self._write(self._gathered(self._batch))
                self._batch = []

    def _gathered(self, batch: list[Logged | threading.Event]) -> list[Logged | threading.Event]:
        """Wait for more, until it is time to write."""
        if self._queue.qsize() < _BATCH and not isinstance(batch[0], threading.Event):
            self._hurry.wait(self._flush_seconds)  # not for the queue: each row would wake us
        self._hurry.clear()
        with suppress(queue.Empty):
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _write(self, batch: list[Logged | threading.Event]) -> None:
        logged = [each for each in batch if isinstance(each, Logged)]
        try:
            rows = [each.row() for each in logged]
            if not self._keep_query:
                rows = [row | {"query": None} for row in rows]
            if rows:
                with self._database.writing() as connection:
                    connection.execute(sa.insert(_ROWS), rows)
        except DataError as error:
            self._drop(len(logged))
            logger.warning("%s (%d rows dropped)", error, len(logged))
        except (IntegrityError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            # A row that cannot be written, from some plug-in; its text is not for our logs.
            self._drop(len(logged))
            kind = type(error).__name__
            logger.warning("decisions: %s: %s (%d rows dropped)", self.where, kind, len(logged))
        finally:
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()

    def _drop(self, rows: int) -> None:
        with self._lock:
            self._dropped += rows


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def _statuses(text: str) -> tuple[int, int]:
    """Return the first and the last status that is meant."""
    if text.isdecimal() and len(text) == 3:
        return int(text), int(text)
    if len(text) == 3 and text[0].isdecimal() and text[1:] == "xx":
        return int(text[0]) * 100, int(text[0]) * 100 + 99
    raise OptionError(f"status: {text!r} is no HTTP status; write for example 200 or 5xx")
