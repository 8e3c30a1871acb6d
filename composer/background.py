"""An event loop of our own, for callers that have none."""

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import CancelledError
from typing import TypeVar

from experts_registry.errors import ComposerError, ExpertUnavailableError

__all__ = ["BackgroundLoop"]

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a daemon thread, started at first use.

    One loop for life: HTTP pools are bound to the loop they start on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.is_stopped = False

    def run(self, awaitable: Awaitable[T]) -> T:
        """Wait for something that runs on the loop; Ctrl-C cancels it and waits for its end.

        Raises:
            ComposerError: this is the loop's own thread, which would wait for itself.
            ExpertUnavailableError: the loop was stopped meanwhile.
        """
        if threading.current_thread() is self._thread:
            raise ComposerError("query: is called on the composer's own loop; await aquery there")
        loop, ended = self._running(), threading.Event()
        future = asyncio.run_coroutine_threadsafe(_until_end(awaitable, ended), loop)
        try:
            return future.result()
        except CancelledError:
            raise ExpertUnavailableError("the composer was closed; make a new one") from None
        except BaseException:
            if future.cancel():  # interrupted here, not failed there
                ended.wait(timeout=10)
            raise

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        with self._lock:
            loop, self._loop, self.is_stopped = self._loop, None, True
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(timeout=10)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.is_stopped:
                raise ExpertUnavailableError("the composer is closed; make a new one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="composer", daemon=True
                )
                self._thread.start()
            return self._loop


async def _until_end(awaitable: Awaitable[T], ended: threading.Event) -> T:
    """Accept what is awaitable but no coroutine, such as ``anext(...)``; tell when it is over."""
    try:
        return await awaitable
    finally:
        ended.set()


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # As `asyncio.run` ends: what still runs is cancelled and awaited, not forgotten.
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
