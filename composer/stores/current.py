"""What lies in files that others replace: opened when needed, and again after it was replaced."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Current", "file_mark"]

T = TypeVar("T")


class Current(Generic[T]):
    """The newest of something; whoever has an older one may go on with it.

    Args:
        open: reads it.
        mark: is cheap, and differs after it was replaced.
    """

    def __init__(self, open: Callable[[], T], mark: Callable[[], object]) -> None:
        self._open = open
        self._mark = mark
        self._held: tuple[object, T] | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the newest; one that cannot be opened is tried again at the next call."""
        mark, held = self._mark(), self._held
        if held is not None and held[0] == mark:
            return held[1]
        with self._lock:
            # Marked before it is read: what is replaced meanwhile is read again.
            mark, held = self._mark(), self._held
            if held is None or held[0] != mark:
                self._held = held = mark, self._open()
            return held[1]


def file_mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced by another, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
