"""Run the door with uvicorn on a loopback address until a signal ends it."""

import asyncio
import gc
import math
import signal
import socket
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import FrameType

from experts_registry.errors import OptionError, PluginError

try:
    import httptools  # noqa: F401 - `DoorProtocol` needs it
    import prometheus_client  # noqa: F401 - `create_app` needs it
    import starlette  # noqa: F401 - this too
    import uvicorn
except ImportError as error:
    raise PluginError(
        f"serve: {error.name} is missing; run: pip install 'expert-composer[serve]'"
    ) from error

from composer.http.app import create_app
from composer.http.origin import is_loopback
from composer.http.protocol import DoorProtocol, Patience
from composer.key_store import KeyStore
from composer.locations import database_location
from experts_registry.registry import Registry

__all__ = ["listening", "require_keys", "serve", "shown"]

DRAIN_SECONDS = 30.0
IDLE_SECONDS = 75  # longer than a balancer keeps a connection that it may still use
_LAST_SECONDS = 5.0  # for those that are told to end


def serve(
    registry: Path,
    *,
    host: str,
    port: int,
    workers: bool = False,
    allowed_hosts: Collection[str] = (),
    drain_seconds: float = DRAIN_SECONDS,
    patience: Patience | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve an expert file until SIGTERM or Ctrl-C; requests in flight finish first.

    After ``drain_seconds``, or at a second signal, those that are left end with an error.

    Args:
        registry: the file.
        host: the address to listen on; beyond loopback somebody must hold a key.
        port: 0 takes a free one.
        workers: run experts on Ray instead of in this process.
        allowed_hosts: further names of this server, see `composer.http.origin`.
        drain_seconds: how long requests in flight may take after the signal.
        patience: with slow clients.
        ready: is told the address once clients can connect.

    Raises:
        RegistryError: the file is wrong.
        OptionError: the address is in use, or others could reach it and there are no keys.
    """
    if not is_loopback(host):
        require_keys(registry, f"--host: {host!r} could be reached from other machines")
    with listening(host, port) as listener:
        app = create_app(registry, workers=workers, allowed_hosts=allowed_hosts)
        _collect_rarely()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody here reads whom a client came through
            http=partial(DoorProtocol, patience=patience),  # type: ignore[arg-type]
            ws="none",
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=math.ceil(drain_seconds + _LAST_SECONDS),
        )
        server = _Server(config, drain_seconds)
        # From here on, as uvicorn listens to it later. It also raises the signal again once it
        # has drained, but a drained server ended well.
        signal.signal(signal.SIGTERM, server.handle_exit)
        ready(shown(host, listener.getsockname()[1]))
        server.run(sockets=[listener])


def _collect_rarely() -> None:
    """Look for cyclic garbage less often: a request leaves next to none, and looking costs 8 %."""
    gc.collect()
    gc.freeze()  # what is there now stays
    gc.set_threshold(20_000, 20, 20)


class _Server(uvicorn.Server):
    """Ends what is left after the drain in time for it to be told, charged and logged."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._is_hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; end at the second."""
        self._is_hurried = self.should_exit
        super().handle_exit(sig, frame)
        self.force_exit = False  # which would leave the logs unwritten

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait."""
        ending = asyncio.create_task(self._end_what_is_left())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end_what_is_left(self) -> None:
        until = asyncio.get_running_loop().time() + self._drain_seconds
        while not self._is_hurried and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.1)
        for task in list(self.server_state.tasks):
            task.cancel()


def require_keys(path: Path, why: str) -> None:
    """Refuse to serve where nobody would have to show a key.

    Raises:
        OptionError: there is none; it begins with ``why`` one is needed.
    """
    store = KeyStore(database_location(Registry.load(path), "keys"))
    try:
        if not store.has_keys():
            raise OptionError(
                f"{why}, and there is no API key; make one with "
                "'expert-composer keys create NAME', or use 127.0.0.1"
            )
    finally:
        store.close()


def listening(host: str, port: int) -> socket.socket:
    """Listen from now on: clients that come while the server starts wait for it.

    Raises:
        OptionError: the address is in use, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OptionError(
            f"--port: cannot listen on {host}:{port} ({error.strerror}); choose another"
        ) from None


def shown(host: str, port: int) -> str:
    """Return an address as clients write it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
