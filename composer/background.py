"""An event loop of our own, for callers that have none."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["BackgroundLoop"]

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a daemon thread, started at first use.

    One loop for life: HTTP pools are bound to the loop they start on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Awaitable[T]) -> T:
        """Wait for a coroutine that runs on the loop; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._running())
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread; a later `run` starts a new one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(timeout=10)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="composer", daemon=True
                )
                self._thread.start()
            return self._loop


async def _awaited(awaitable: Awaitable[T]) -> T:
    """Accept what is awaitable but no coroutine, such as ``anext(...)``."""
    return await awaitable


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # As `asyncio.run` ends: what still runs is cancelled, not forgotten.
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
