"""What several editions hold: whichever lets go last closes it."""

import threading
from dataclasses import dataclass, field

__all__ = ["Shared"]


@dataclass(kw_only=True)
class Shared:
    """Counts its holders, the one that made it first; safe from any thread."""

    _holders: int = field(default=1, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def take(self) -> None:
        """Let one more hold it."""
        with self._lock:
            self._holders += 1

    def is_free_without_me(self) -> bool:
        """Let go; tell whether nobody holds it any more."""
        with self._lock:
            self._holders -= 1
            return not self._holders
