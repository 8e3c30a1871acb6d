"""What lies in files that others replace: opened when needed, and again after it was replaced."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Current"]

T = TypeVar("T")
Stamp = tuple[int, ...] | None


class Current(Generic[T]):
    """The newest of something; whoever has an older one may go on with it.

    Args:
        open: reads it.
        file: is replaced, by another file, as the last step of every change.
    """

    def __init__(self, open: Callable[[], T], file: Path) -> None:
        self._open = open
        self._file = file
        self._held: tuple[Stamp, T] | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the newest; one that cannot be opened is tried again at the next call."""
        stamp, held = self._stamp(), self._held
        if held is not None and held[0] == stamp:
            return held[1]
        with self._lock:
            # Stamped before it is read: what is replaced meanwhile is read again.
            stamp, held = self._stamp(), self._held
            if held is None or held[0] != stamp:
                self._held = held = stamp, self._open()
            return held[1]

    def _stamp(self) -> Stamp:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
