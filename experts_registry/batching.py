"""Collect the calls of many threads and event loops into batches for one model."""

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from experts_registry.errors import ExpertOverloadedError, ExpertUnavailableError

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")

IDLE = 5.0
"""Seconds without work after which the thread ends; the next item starts another."""


@dataclass(frozen=True, eq=False)
class _Entry(Generic[T, R]):
    item: T
    key: Hashable
    arrived: float
    future: "Future[R]" = field(default_factory=Future)


class Batcher(Generic[T, R]):
    """One thread that runs a function over batches of compatible items, oldest first.

    Args:
        run: gets a batch and returns a result or an exception for each of its items.
        where: the start of an error message: whose calls these are.
        max_batch: most items at once.
        window: seconds to wait for company after the oldest item arrived.
        max_queue: most items that wait; more are refused.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Sequence[R | BaseException]],
        *,
        where: str,
        max_batch: int = 8,
        window: float = 0.005,
        max_queue: int = 1024,
    ) -> None:
        self._run = run
        self._where = where
        self._max_batch = max_batch
        self._window = window
        self._max_queue = max_queue
        self._pending: deque[_Entry[T, R]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def is_closing(self) -> bool:
        """Whether nobody waits for results any more; a long `run` looks at this now and then."""
        return self._closed

    def submit(self, item: T, *, key: Hashable = None) -> "Future[R]":
        """Queue an item; it shares a batch only with items of the same key.

        Raises:
            ExpertOverloadedError: too many are waiting.
            ExpertUnavailableError: the batcher is closed.
        """
        entry: _Entry[T, R] = _Entry(item, key, time.monotonic())
        with self._changed:
            if self._closed:
                raise self._closed_error()
            if len(self._pending) >= self._max_queue:
                raise ExpertOverloadedError(
                    f"{self._where}: {self._max_queue} calls are waiting already; "
                    "come back later, or give it more resources.replicas"
                )
            self._pending.append(entry)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._where, daemon=True)
                self._thread.start()
                # The interpreter must not end under a thread that computes: it would crash.
                atexit.register(self.close)
        return entry.future

    def close(self) -> None:
        """Fail what is waiting, and wait for the running batch to notice `is_closing`."""
        with self._changed:
            self._closed, thread = True, self._thread
            pending = [*self._pending]
            self._pending.clear()
            self._changed.notify()
        for entry in pending:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(self._closed_error())
        if thread is not None:
            thread.join()

    def _serve(self) -> None:
        while batch := self._take():
            self._answer([e for e in batch if e.future.set_running_or_notify_cancel()])

    def _answer(self, batch: list[_Entry[T, R]]) -> None:
        try:
            results = self._run([entry.item for entry in batch]) if batch else ()
            settled = list(zip(batch, results, strict=True))
        except BaseException as error:  # noqa: BLE001 - belongs to the callers, who wait for it
            settled = [(entry, error) for entry in batch]
        for entry, result in settled:
            if isinstance(result, BaseException):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    def _take(self) -> list[_Entry[T, R]]:
        """Remove the oldest items of one key from the queue; none means that the thread ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed, IDLE)
            batch = self._oldest()
            if not batch:
                self._thread = None
                atexit.unregister(self.close)
            for entry in batch:
                self._pending.remove(entry)
            return batch

    def _oldest(self) -> list[_Entry[T, R]]:
        """Return the next batch, after waiting for it to fill."""
        while self._pending:
            first = self._pending[0]
            batch = [e for e in self._pending if e.key == first.key][: self._max_batch]
            left = first.arrived + self._window - time.monotonic()
            if left <= 0 or len(batch) == self._max_batch:
                return batch
            self._changed.wait(left)
        return []

    def _closed_error(self) -> ExpertUnavailableError:
        return ExpertUnavailableError(f"{self._where}: has been closed; make a new one")
