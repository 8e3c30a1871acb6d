"""Leave an expert alone that keeps failing, and find out when it is well again.

The circuit breaker of M. Nygard, "Release It!" (2007): closed lets calls pass; open refuses them;
after a while one call probes (half-open), whose end closes or opens it again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from composer.status import BreakerState

__all__ = ["Breaker"]

_WINDOW = 60.0  # seconds that a call counts
_REMEMBERED = 20  # of the last calls
_FAILURES = 5  # open it, where they are half of the calls or more
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds; doubled by every probe that fails
_LONGEST_REST = 60.0  # seconds that an expert can ask for: a clock may be wrong
_PROBE_SECONDS = 1.0  # when to come back while a probe is on its way


class Breaker:
    """The breaker of one expert; safe from any thread.

    An expert that names the time to come back rests until then, and is not held to have failed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[tuple[float, bool]] = deque(maxlen=_REMEMBERED)
        self._shut_until = 0.0
        self._pause = 0.0  # of the open breaker; 0 where it is closed
        self._is_probing = False
        self._lock = threading.Lock()

    @property
    def state(self) -> BreakerState:
        """Whether calls pass."""
        with self._lock:
            if self._clock() < self._shut_until:
                return "open"
            return "half-open" if self._pause else "closed"

    @property
    def is_resting(self) -> bool:
        """Whether it refuses because the expert asked for it, not because it failed."""
        with self._lock:
            return not self._pause

    @property
    def refuses_for(self) -> float:
        """Seconds until a call may pass; 0 where it may now."""
        with self._lock:
            return self._wait()

    def enter(self) -> float:
        """Let a call pass and return 0, or return the seconds after which to come back."""
        with self._lock:
            if (wait := self._wait()) == 0 and self._pause:
                self._is_probing = True
            return wait

    def succeeded(self) -> None:
        """Note that a call ended well: the expert is there."""
        with self._lock:
            if self._pause and not self._is_probing:
                return  # begun before it failed so often
            if self._pause:
                self._calls.clear()
            self._calls.append((self._clock(), True))
            self._pause, self._is_probing = 0.0, False

    def failed(self) -> None:
        """Note that a call failed for a reason that the next one is likely to share."""
        with self._lock:
            now = self._clock()
            if self._is_probing:
                self._open(now, min(2 * self._pause, _LONGEST_PAUSE))
            elif not self._pause:
                self._calls.append((now, False))
                recent = [is_well for at, is_well in self._calls if now - at <= _WINDOW]
                failures = recent.count(False)
                if failures >= _FAILURES and 2 * failures >= len(recent):
                    self._open(now, _FIRST_PAUSE)

    def rest(self, seconds: float) -> None:
        """Note that the expert asked to be left alone for so long."""
        with self._lock:
            until = self._clock() + min(seconds, _LONGEST_REST)
            self._shut_until = max(self._shut_until, until)
            self._is_probing = False

    def abandoned(self) -> None:
        """Note that a call was given up by the caller, which says nothing of the expert."""
        with self._lock:
            self._is_probing = False

    def _wait(self) -> float:
        if (wait := self._shut_until - self._clock()) > 0:
            return wait
        return _PROBE_SECONDS if self._is_probing else 0.0

    def _open(self, now: float, pause: float) -> None:
        self._pause, self._shut_until, self._is_probing = pause, now + pause, False
