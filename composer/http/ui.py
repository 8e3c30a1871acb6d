"""GET /ui: the page, which is static; all that it shows it asks the API for, with a key.

Who opens the address of the server itself in a browser is led there.
"""

from importlib.resources import files
from pathlib import PurePath

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

__all__ = ["page_routes"]

_INDEX = "index.html"
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, no frame around it; and no script may turn a text, which
# a model may have written, into HTML or code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return a route for each of the page's files; they are read now, once."""
    folder = files("composer") / "templates" / "ui"
    named = {file.name: _served(file.name, file.read_bytes()) for file in folder.iterdir()}
    return [
        Route("/", RedirectResponse("ui"), methods=["GET"]),
        Route("/ui", named[_INDEX], methods=["GET"]),
        Route("/ui/", RedirectResponse("../ui"), methods=["GET"]),
        *(Route(f"/ui/{name}", file, methods=["GET"]) for name, file in named.items()),
    ]


def _served(name: str, content: bytes) -> Response:
    return Response(content, headers=_HEADERS, media_type=_KINDS[PurePath(name).suffix])
