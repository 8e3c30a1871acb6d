"""What every database here shares: SQLite in WAL mode by default, any database by URL.

Several processes may write at once: SQLite makes them wait for each other, ``busy_seconds`` at
most. The file is made by the first write; reading never makes it.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from experts_registry.errors import DatabaseError, DataError

__all__ = ["Database"]

_MAKING = 7_160_437_122  # any number that no other program locks there
_HINTS = (
    ("locked", "another program holds it; try again, or end that program"),
    ("full", "make room on the disk"),
    ("disk I/O", "make room on the disk, or see that it is sound"),
    ("readonly", "make it writable, or name another file under '{what}:'"),
    ("unable to open", "name a file in a folder that can be written under '{what}:'"),
    ("not a database", "it is no SQLite file; move it away, or name another under '{what}:'"),
    ("malformed", "it is damaged; move it away or restore a copy, or name another under '{what}:'"),
)


class Database:
    """A few tables in one database, with its complaints in our words.

    Args:
        where: a database URL, or the path of an SQLite file.
        what: the key of the expert file that names it; errors begin with it.
        tables: what is made where it is not there yet, indexes included.
        busy_seconds: longest wait for another writer of an SQLite file.
        is_synced: wait for the disk at every commit. Without it a power cut may cost the last
            commits to an SQLite file; the end of the process, a kill too, costs nothing.

    Raises:
        DataError: the URL or its driver is not there; later a `DatabaseError`, whatever the
            database refuses.
    """

    def __init__(
        self,
        where: str | Path,
        what: str,
        tables: Sequence[sa.Table],
        *,
        busy_seconds: float = 10.0,
        is_synced: bool = True,
    ) -> None:
        is_url = "://" in str(where)
        self._what, self._tables, self._busy_seconds = what, tables, busy_seconds
        self._file = None if is_url else Path(where)
        try:
            url = sa.make_url(str(where)) if is_url else _file_url(where)
            self.where = url.render_as_string(hide_password=True) if is_url else str(where)
            self._is_sqlite = url.get_backend_name() == "sqlite"
            self._engine = sa.create_engine(url, **self._options())
        except SQLAlchemyError as error:
            raise DataError(f"{what}: {error}; write a path or a database URL") from error
        except ImportError as error:
            raise DataError(
                f"{what}: {self.where}: its driver is not installed ({error}); install it"
            ) from error
        if self._is_sqlite and not is_synced:
            sa.event.listen(self._engine, "connect", _sync_less)
        # SQLite lets one write at a time. A lock hands over at once; SQLite would have the
        # threads of this process poll for their turn, with pauses of up to 0.1 s.
        self._turn = threading.Lock() if self._is_sqlite else nullcontext()
        self._lock = threading.Lock()
        self._is_made = self._is_complete = False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection to read with."""
        with self._told():
            with self._lock:
                if not self._is_complete:
                    self._complete()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction, which an error undoes; make the tables first.

        Begin it with a statement that writes: SQLite lets no reader become a writer once another
        has written.
        """
        with self._told():
            with self._lock:
                if not self._is_made:
                    self._make()
                    self._is_made = True
            with self._turn, self._engine.begin() as connection:
                yield connection

    def exists(self) -> bool:
        """Tell whether anything was ever written."""
        if self._is_made or (self._file is not None and not self._file.exists()):
            return self._is_made
        with self._told():
            self._is_made = sa.inspect(self._engine).has_table(self._tables[-1].name)
        return self._is_made

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- inside ---------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        if not self._is_sqlite:
            return {"pool_pre_ping": True}
        return {"connect_args": {"timeout": self._busy_seconds}}

    def _make(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._is_sqlite:
            self._turn_wal_on()
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                # Two that make a table at once: there IF NOT EXISTS does not help the slower.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
            for table in self._tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
        self._complete()

    def _complete(self) -> None:
        """Add the columns that tables of an older version lack; they are null in its rows."""
        known = sa.inspect(self._engine)
        for table in filter(lambda table: known.has_table(table.name), self._tables):
            there = {column["name"] for column in known.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    self._add(column)
        self._is_complete = True

    def _add(self, column: sa.Column[Any]) -> None:
        kind = column.type.compile(self._engine.dialect)
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(
                    f'ALTER TABLE "{column.table.name}" ADD COLUMN "{column.name}" {kind}'
                )
        except (OperationalError, ProgrammingError):
            # Another process may have been quicker.
            there = sa.inspect(self._engine).get_columns(column.table.name)
            if column.name not in {found["name"] for found in there}:
                raise

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
        except sa.exc.IntegrityError:  # a row that is there already: callers expect it
            raise
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or type(error).__name__).strip()
            hint = next((hint for sign, hint in _HINTS if sign in cause), "see that it can be used")
            hint = hint.format(what=self._what)
            raise DatabaseError(f"{self._what}: {self.where}: {cause}; {hint}") from None
        except OSError as error:
            raise DatabaseError(
                f"{self._what}: {self.where}: {error.strerror}; "
                f"name another file under '{self._what}:'"
            ) from error


def _file_url(where: str | Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(where))


def _sync_less(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
