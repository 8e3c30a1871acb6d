"""Real servers on loopback ports, each in a thread of its own."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

__all__ = ["running", "until"]


def until(claim: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is true; fail where it does not become true in time."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)


@contextmanager
def running(app: object, **options: Any) -> Iterator[str]:
    """Serve an ASGI app, with these options of uvicorn; yield its address."""
    options = {"log_level": "warning", "timeout_graceful_shutdown": 5, **options}
    config = uvicorn.Config(app, access_log=False, ws="none", **options)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
