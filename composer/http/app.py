"""The ASGI app: which path is answered by what, and by which edition of the expert file."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from composer.http.asked import Asked, Endpoint
from composer.http.bodies import read_object
from composer.http.chat import chat
from composer.http.completions import completions
from composer.http.connection import Guarded, while_connected
from composer.http.deciding import feedback, route
from composer.http.editions import Editions
from composer.http.embeddings import embeddings
from composer.http.models import model, models
from composer.http.origin import require_same_origin
from composer.http.state import health, ready, registry
from composer.sdk import Composer

__all__ = ["create_app"]

_POST: Mapping[str, Endpoint] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/route": route,
    "/v1/feedback": feedback,
}
_GET: Mapping[str, Endpoint] = {"/v1/models": models, "/v1/models/{id:path}": model}
_STATE = {"/health": health, "/health/ready": ready, "/admin/registry": registry}


def create_app(source: Composer | str | Path, *, workers: bool = False) -> ASGIApp:
    """Serve an expert file, whose edits are followed, or a composer as it is.

    The composers are closed when the server stops.

    Args:
        source: the file, or a composer.
        workers: run the file's experts on Ray instead of in this process.

    Raises:
        RegistryError: the file is wrong.
    """
    is_file = not isinstance(source, Composer)
    composer = source if isinstance(source, Composer) else Composer.load(source, workers=workers)
    editions = Editions(composer, workers)
    routes = [
        *(Route(path, _Served(editions, end), methods=["POST"]) for path, end in _POST.items()),
        *(Route(path, _Served(editions, end), methods=["GET"]) for path, end in _GET.items()),
        *(
            Route(path, _Served(editions, partial(end, editions)), methods=["GET"])
            for path, end in _STATE.items()
        ),
    ]
    lifespan = partial(_following, editions, is_file)
    return Guarded(Router(routes, redirect_slashes=False, lifespan=lifespan))


class _Served:
    """Runs one endpoint on the current edition, for as long as the client stays."""

    def __init__(self, editions: Editions, endpoint: Endpoint) -> None:
        self._editions, self._endpoint = editions, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = {}
        if scope["method"] == "POST":
            require_same_origin(scope)
            body = await read_object(receive)
        async with self._editions.lend() as composer, while_connected(receive):
            asked = Asked(
                composer=composer,
                body=body,
                path=scope["path_params"],
                began=time.perf_counter(),
            )
            response = await self._endpoint(asked)
            await response(scope, receive, send)


@asynccontextmanager
async def _following(editions: Editions, is_file: bool, _app: Any) -> AsyncIterator[None]:
    """Follow the file while the server runs, and close everything at its end."""
    following = asyncio.create_task(editions.follow()) if is_file else None
    try:
        yield
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        await editions.aclose()
