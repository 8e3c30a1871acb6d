"""Who may post from a browser: only a page of this server itself."""

from urllib.parse import urlsplit

from starlette.types import Scope

from composer.http.errors import ApiError

__all__ = ["require_same_origin"]


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


def _host(origin: bytes) -> bytes | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
