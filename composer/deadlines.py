"""The time that a call may take, and the error where it takes longer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
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
        self._left = seconds if left is None else left
        self._alarm: _Alarm | None = None

    async def __aenter__(self) -> None:
        if self._seconds is not None and self._left is not None:
            self._alarm = _Alarm(self._left)
            self._alarm.watch()

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._alarm is None:
            return
        self._alarm.stop()
        if self._alarm.is_cause_of(error):
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
            if alarm.has_rung:
                raise _too_late(who, seconds)
            alarm.watch()
            try:
                item = await anext(chunks)
            except StopAsyncIteration:
                return
            except BaseException as error:
                if alarm.is_cause_of(error):
                    raise _too_late(who, seconds) from None
                raise
            finally:
                alarm.rest()
            yield item
    finally:
        alarm.stop()


class _Alarm:
    """Wakes the task that waits when the time is up."""

    def __init__(self, seconds: float) -> None:
        self.has_rung = False
        self._has_woken = False
        self._task: asyncio.Task[Any] | None = None
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._ring)

    def watch(self) -> None:
        """Wake the current task, from now on."""
        self._task = asyncio.current_task()
        self._cancelled = self._task.cancelling() if self._task else 0

    def rest(self) -> None:
        """Wake nobody."""
        self._task = None

    def is_cause_of(self, error: BaseException | None) -> bool:
        """Tell whether it alone ended the wait, and not somebody else who cancelled meanwhile."""
        if not self._has_woken or self._task is None:
            return False
        is_alone = self._task.uncancel() <= self._cancelled
        return is_alone and isinstance(error, asyncio.CancelledError)

    def stop(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        self.has_rung = True
        if self._task is not None:
            self._has_woken = True
            self._task.cancel()


def _too_late(who: str, seconds: float | None, of: str = "answer") -> ExpertTimeoutError:
    return ExpertTimeoutError(
        f"{who}: no {of} within {seconds:.4g} s; raise limits.seconds, ask for fewer tokens, "
        "or use a faster expert"
    )
