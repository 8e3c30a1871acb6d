"""The time that a call may take, and the error where it takes longer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from experts_registry.errors import ExpertTimeoutError

__all__ = ["deadline", "timed"]

T = TypeVar("T")


class deadline:  # noqa: N801 - reads as a verb; a class, as three a request must cost little
    """Turn the passing of ``seconds``, or what is left of them, into an `ExpertTimeoutError`."""

    def __init__(
        self, who: str, seconds: float | None, *, left: float | None = None, of: str = "answer"
    ) -> None:
        self._who, self._seconds, self._of = who, seconds, of
        self._scope = (
            None if seconds is None else asyncio.timeout(seconds if left is None else left)
        )

    async def __aenter__(self) -> None:
        if self._scope is not None:
            await self._scope.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scope is None:
            return
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise _too_late(self._who, self._seconds, self._of) from None


async def timed(
    chunks: AsyncIterator[T], who: str, seconds: float | None, *, left: float | None = None
) -> AsyncGenerator[T]:
    """Pass items on until ``seconds``, or what is left of them, have passed in total.

    One timer for all items: a scope around a ``yield`` would belong to whichever task asked for
    the first one, and a scope an item would be half of its cost.
    """
    if seconds is None:
        async for item in chunks:
            yield item
        return
    alarm = _Alarm(seconds if left is None else left)
    try:
        while True:
            try:
                with alarm.watching():
                    item = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not alarm.has_rung:
                    raise
                raise _too_late(who, seconds) from None
            yield item
    finally:
        alarm.stop()


class _Alarm:
    """Wakes whichever task waits when the time is up, and those that come later at once."""

    def __init__(self, seconds: float) -> None:
        self.has_rung = False
        self._task: asyncio.Task[Any] | None = None
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._ring)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise `TimeoutError` in here when the time is up."""
        if self.has_rung:
            raise TimeoutError
        task = self._task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
        except asyncio.CancelledError:
            # Ours, unless somebody else cancels at the same time.
            if self.has_rung and task is not None and task.uncancel() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def stop(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        self.has_rung = True
        if self._task is not None:
            self._task.cancel()


def _too_late(who: str, seconds: float | None, of: str = "answer") -> ExpertTimeoutError:
    return ExpertTimeoutError(
        f"{who}: no {of} within {seconds:.4g} s; raise limits.seconds, ask for fewer tokens, "
        "or use a faster expert"
    )
