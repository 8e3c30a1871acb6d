"""Requests and tokens a minute: a sliding window for each API key, in this process's memory.

In memory on purpose: a window is forgotten within a minute, so a restart costs at most one more
minute's worth, and no request waits for a disk because of it. The price: every process counts for
itself, so n server processes let up to n times the rate through. What must hold over all of them,
the money, is in the database (`composer.spending`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from experts_registry.errors import LimitError

__all__ = ["Entry", "RateWindows", "Used"]

_SECONDS = 60.0


@dataclass
class Entry:
    """One request in a window; its tokens are a guess until it has been answered."""

    time: float
    tokens: int


@dataclass(frozen=True)
class Used:
    """What a key has used within a minute."""

    requests: int
    tokens: int


@dataclass
class _Window:
    entries: deque[Entry] = field(default_factory=deque)  # oldest first
    tokens: int = 0  # of all entries

    def forget(self, before: float) -> None:
        """Drop what is older than a minute."""
        while self.entries and self.entries[0].time <= before:
            self.tokens -= self.entries.popleft().tokens


class RateWindows:
    """The last 60 seconds of every key, exactly: nothing is rounded to whole minutes.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def enter(self, key_id: str, tokens: int, *, rpm: int | None, tpm: int | None) -> Entry:
        """Count a request, unless that exceeds a limit.

        Raises:
            LimitError: it would; a refused request is not counted.
        """
        with self._lock:
            now = self._clock()
            window = self._windows.setdefault(key_id, _Window())
            window.forget(now - _SECONDS)
            if rpm is not None and len(window.entries) >= rpm:
                # With room for one less, the oldest of the last rpm entries must leave first.
                wait = window.entries[len(window.entries) - rpm].time + _SECONDS - now
                raise _over("requests", f"{rpm} requests", wait)
            if tpm is not None and window.tokens + tokens > tpm:
                raise _over("tokens", f"{tpm} tokens", _wait(window, tokens, tpm, now))
            entry = Entry(now, tokens)
            window.entries.append(entry)
            window.tokens += tokens
            return entry

    def used(self, key_id: str) -> Used:
        """Return what counts against the limits of a key now."""
        with self._lock:
            window = self._windows.get(key_id, _Window())
            window.forget(self._clock() - _SECONDS)
            return Used(len(window.entries), window.tokens)

    def correct(self, key_id: str, entry: Entry, tokens: int) -> None:
        """Replace a guess by what was used."""
        with self._lock:
            window = self._windows[key_id]
            if window.entries and window.entries[0].time <= entry.time:
                window.tokens += tokens - entry.tokens
            entry.tokens = tokens

    def leave(self, key_id: str, entry: Entry) -> None:
        """Take back a request that was never made."""
        with self._lock:
            window = self._windows[key_id]
            for i, other in enumerate(window.entries):
                if other is entry:
                    del window.entries[i]
                    window.tokens -= entry.tokens
                    return


def _wait(window: _Window, tokens: int, tpm: int, now: float) -> float | None:
    """Return the seconds until enough old tokens have left; None if a request never fits."""
    if tokens > tpm:
        return None
    excess = window.tokens + tokens - tpm
    for entry in window.entries:
        excess -= entry.tokens
        if excess <= 0:
            return entry.time + _SECONDS - now
    return _SECONDS


def _over(limit: str, most: str, wait: float | None) -> LimitError:
    told = (
        "the request alone is larger; ask for fewer tokens"
        if wait is None
        else f"try again in {wait:.1f} s"
    )
    return LimitError(f"API key: its limit of {most} a minute is reached; {told}", limit, wait)
