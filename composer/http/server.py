"""Run the door with uvicorn on a loopback address until a signal ends it."""

import ipaddress
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from experts_registry.errors import OptionError, PluginError

try:
    import starlette  # noqa: F401 - `create_app` needs it
    import uvicorn
except ImportError as error:
    raise PluginError(
        f"serve: {error.name} is missing; run: pip install 'expert-composer[serve]'"
    ) from error

from composer.http.app import create_app
from composer.key_store import KeyStore
from composer.locations import database_location
from experts_registry.registry import Registry

__all__ = ["is_loopback", "listening", "require_keys", "serve", "shown"]

DRAIN_SECONDS = 30


def serve(
    registry: Path,
    *,
    host: str,
    port: int,
    workers: bool = False,
    ready: Callable[[str], None],
) -> None:
    """Serve an expert file until SIGTERM or Ctrl-C; requests in flight finish first.

    Args:
        registry: the file.
        host: the address to listen on; beyond loopback somebody must hold a key.
        port: 0 takes a free one.
        workers: run experts on Ray instead of in this process.
        ready: is told the address once clients can connect.

    Raises:
        RegistryError: the file is wrong.
        OptionError: the address is in use, or others could reach it and there are no keys.
    """
    if not is_loopback(host):
        require_keys(registry, f"--host: {host!r} could be reached from other machines")
    with listening(host, port) as listener:
        app = create_app(registry, workers=workers)
        ready(shown(host, listener.getsockname()[1]))
        # uvicorn raises the signal again once it has drained, but a drained server ended well.
        signal.signal(signal.SIGTERM, lambda *_: None)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
