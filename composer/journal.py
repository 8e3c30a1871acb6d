"""Outcomes on their way to disk, so that a kill costs at most the calls in flight.

Beside ``outcomes.parquet`` stands ``outcomes.parquet.journal``, to which every finished cell is
appended as a line of JSON. When a run ends, or the next one begins, the journal is folded into
the Parquet file, which is replaced atomically. Only one process may write at a time.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

from composer.cells import Row
from experts_registry.errors import DataError
from routers.outcomes import read_outcomes, write_outcomes

__all__ = ["Journal"]

_SYNC_SECONDS = 1.0  # what a power cut may cost; a kill of the process alone costs nothing


class Journal:
    """The rows of one outcomes file by (query id, expert), each safe once it is added."""

    _file: BinaryIO

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str], Row] = {}
        self._log = path.with_name(f"{path.name}.journal")
        self._synced = 0.0

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Hold the file for writing; fold the journal into it on the way out, whatever happens.

        Raises:
            DataError: another process holds it, or the disk is full or read-only.
        """
        if not path.name or path.is_dir():
            raise DataError(f"{path}: is a folder; name a file, for example outcomes.parquet")
        lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held = lock.acquire()
            except Timeout:
                raise DataError(
                    f"{path}: another collect is writing to it; wait for it, or choose another file"
                ) from None
        with held:
            journal = cls(path)
            journal._read()
            journal._fold()  # what an earlier run left, so that a torn line never gets a successor
            with _disk(journal._log):
                journal._file = journal._log.open("wb")
            try:
                yield journal
            finally:
                with suppress(OSError):  # what could not be flushed was reported when it was added
                    journal._file.close()
                journal._fold()

    def add(self, row: Row) -> None:
        """Record a cell: a graded row is replaced only by a graded one."""
        line = json.dumps(row, ensure_ascii=True, allow_nan=False)
        with _disk(self._log):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if (now := time.monotonic()) - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
        self._put(row)

    def _put(self, row: Row) -> None:
        key = (row["query_id"], row["expert"])
        old = self.rows.get(key, {})
        if row["quality"] is not None or old.get("quality") is None:
            self.rows[key] = {**old, **row}  # columns that we do not write, such as split, stay

    def _read(self) -> None:
        if self.path.exists():
            for row in read_outcomes(self.path):
                self.rows[row["query_id"], row["expert"]] = row
        if self._log.exists():
            with _disk(self._log):
                lines = self._log.read_bytes().splitlines()
            for number, line in enumerate(lines, start=1):
                try:
                    self._put(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    if number < len(lines):  # the last one was torn by the kill
                        raise DataError(
                            f"{self._log}:{number}: is damaged; delete this line, or the journal"
                        ) from None

    def _fold(self) -> None:
        """Write everything to the Parquet file, then drop the journal."""
        if self.rows:
            with _disk(self.path):
                # In one order, whoever answered first: splits and digests depend on it.
                write_outcomes(self.path, [self.rows[key] for key in sorted(self.rows)])
        with _disk(self._log):
            self._log.unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say what a full or read-only disk means for the run."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another "
            "file, then repeat the command: finished cells are kept"
        ) from error
