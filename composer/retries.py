"""Whether a failed call is worth another try, and how long to wait before it."""

import random
import threading
from collections.abc import Callable

from experts_registry.errors import ComposerError, ExpertBusyError, ExpertUnavailableError
from experts_registry.schema import Limits

__all__ = ["Retries"]

_FIRST, _LONGEST = 0.5, 8.0  # seconds of the exponential backoff
_SHARE = 0.1  # tries that a call pays for: an outage must not multiply the traffic
_SAVED = 10.0  # tries that can be saved up, and that there are to begin with
_SPREAD = 0.1  # added to a wait that was asked for, so that not all come back at once


class Retries:
    """The further tries of one expert's calls; safe from any thread.

    The wait is drawn between 0 and an exponentially growing bound ("full jitter", M. Brooker,
    "Exponential Backoff And Jitter", 2015), unless the expert says when to come back. Tries are
    paid from a budget that calls fill, except where the expert asked for them.

    Args:
        limits: of the expert.
        uniform: draws a number between two bounds.
    """

    def __init__(
        self, limits: Limits, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._limits, self._uniform = limits, uniform
        self._tries = _SAVED
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Note a call that was made for a request."""
        with self._lock:
            self._tries = min(_SAVED, self._tries + _SHARE)

    def wait(self, error: ComposerError, tries: int, left: float | None) -> float | None:
        """Return the seconds to wait before another try, or None where there should be none.

        Args:
            error: how the last try failed.
            tries: how often the expert was asked already.
            left: seconds until the request must be answered.
        """
        if tries > self._limits.retries:
            return None
        if not isinstance(error, ExpertBusyError | ExpertUnavailableError):
            return None
        asked_for = error.retry_after if isinstance(error, ExpertBusyError) else None
        if asked_for:
            wait = asked_for * (1 + self._uniform(0.0, _SPREAD))
        else:
            wait = self._uniform(0.0, min(_LONGEST, _FIRST * 2 ** (tries - 1)))
        if (asked_for or wait) > self._limits.max_retry_wait or (left is not None and wait >= left):
            return None
        return wait if asked_for or self._pay() else None

    def _pay(self) -> bool:
        with self._lock:
            if self._tries < 1:
                return False
            self._tries -= 1
            return True
