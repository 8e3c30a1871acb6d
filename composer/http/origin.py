"""Who may ask from a browser: only a page of this server itself, and by a name of its own."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import Scope

from composer.http.errors import ApiError

__all__ = ["is_loopback", "require_own_name", "require_same_origin"]


def require_own_name(scope: Scope, allowed: Collection[str]) -> None:
    """Refuse what reaches this machine alone under a name that is not its own.

    A page of another site whose name was made to point here (DNS rebinding) shares its origin
    with this server, so that the browser would send its requests and show it the answers. They
    carry that name as their host. What came in from elsewhere needs a key, which no page has.

    Args:
        scope: the request.
        allowed: further names, without port.

    Raises:
        ApiError: it came over loopback, and is for another host.
    """
    if not is_loopback(_server(scope)):
        return
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    named = {_name(b"//" + host) for host in hosts}
    if len(hosts) == 1 and all(is_loopback(name) or name in allowed for name in named):
        return
    raise ApiError(
        403,
        "host: this server goes by another name; ask 127.0.0.1 or localhost, "
        "or start it with --allowed-host",
        code="host",
    )


def require_same_origin(scope: Scope) -> None:
    """Refuse what another site's page sends, which a browser would send to this machine too.

    Raises:
        ApiError: the request carries the origin of another site.
    """
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    if origin is not None and _host(origin) != headers.get(b"host", b""):
        raise ApiError(
            403, "origin: pages of other sites may not ask here; call from a program", code="origin"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine goes by a name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server(scope: Scope) -> str:
    return str((scope.get("server") or ("",))[0])


def _name(url: bytes) -> str:
    """Return the name in an address, in lower case and without its port."""
    try:
        return (urlsplit(url.decode("latin-1")).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _host(origin: bytes) -> bytes | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
