"""Turns at something that only so many may do at once."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future

__all__ = ["Slots"]


class Slots:
    """At most ``size`` holders at once, first come first served, over any number of event loops.

    ``asyncio.Semaphore`` belongs to one loop, and an expert is called from several.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._waiting.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            # Our turn may have come while we were being cancelled: hand it on.
            if not turn.cancel():
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        with self._lock:
            while self._waiting:
                if (turn := self._waiting.popleft()).set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._free += 1
