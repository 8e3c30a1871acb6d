"""The ASGI app: which path is answered by what, and by which edition of the expert file."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from composer.http.access import Access
from composer.http.access_log import write_line
from composer.http.asked import Asked, Endpoint
from composer.http.bodies import read_object, require_plain
from composer.http.chat import chat
from composer.http.completions import completions
from composer.http.connection import Guarded, WhileConnected
from composer.http.crowd import Crowd
from composer.http.deciding import decision, feedback, route
from composer.http.editions import Editions
from composer.http.embeddings import embeddings
from composer.http.exposition import exposition
from composer.http.live import Live
from composer.http.meters import Meters
from composer.http.models import model, models
from composer.http.observed import Observed
from composer.http.openapi.document import describing
from composer.http.origin import require_own_name, require_same_origin
from composer.http.otlp import tracing_from_environment
from composer.http.rerank import rerank
from composer.http.responses import responses
from composer.http.retrieving import retrieve
from composer.http.state import health, ready, registry
from composer.http.status import status
from composer.http.stored import stored
from composer.http.ui import page_routes
from composer.http.visit import Visit
from composer.sdk import Composer
from composer.traffic import Traffic

__all__ = ["MOST_AT_ONCE", "create_app"]

_POST: Mapping[str, Endpoint] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
    "/v2/rerank": rerank,
    "/v1/retrieve": retrieve,
    "/v1/route": route,
    "/v1/feedback": feedback,
}
_GET: Mapping[str, Endpoint] = {
    "/v1/models": models,
    "/v1/models/{id:path}": model,
    "/v1/decisions/{id:path}": decision,
    "/v1/chat/completions": stored,
}
_OPEN = {"/health": health, "/health/ready": ready}  # nobody needs a key for these


MOST_AT_ONCE = 1000  # requests
_NOBODY = nullcontext()


def create_app(
    source: Composer | str | Path,
    *,
    workers: bool = False,
    most_at_once: int = MOST_AT_ONCE,
    allowed_hosts: Collection[str] = (),
) -> ASGIApp:
    """Serve an expert file, whose edits are followed, or a composer as it is.

    The composers are closed when the server stops.

    Args:
        source: the file, or a composer.
        workers: run the file's experts on Ray instead of in this process.
        most_at_once: requests that are answered at once; more are told to come back.
        allowed_hosts: further names of a server that is asked over loopback and without keys.

    Raises:
        RegistryError: the file is wrong.
    """
    is_file = not isinstance(source, Composer)
    composer = source if isinstance(source, Composer) else Composer.load(source, workers=workers)
    editions, access = Editions(composer, workers), Access.of(composer.registry)
    meters, tracing = Meters(), tracing_from_environment()
    served = partial(_Served, editions, access, Crowd(most_at_once), allowed_hosts)
    gets: dict[str, Endpoint] = {
        **_GET,
        "/admin/registry": partial(registry, editions),
        "/metrics": partial(exposition, meters.registry),
        "/admin/status": partial(status, editions, Traffic(access.log)),
    }
    routes = [
        *(Route(path, served(end), methods=["POST"]) for path, end in _POST.items()),
        *(Route(path, served(end), methods=["GET"]) for path, end in gets.items()),
        *(
            Route(path, served(partial(end, editions), is_open=True), methods=["GET"])
            for path, end in _OPEN.items()
        ),
        *page_routes(),
    ]
    contract = served(describing(routes), is_open=True)
    routes.append(Route("/openapi.json", contract, methods=["GET"]))
    ends = [access.close] if tracing is None else [access.close, tracing.close]
    lifespan = partial(_following, editions, is_file, ends)
    guarded = Guarded(Router(routes, redirect_slashes=False, lifespan=lifespan))
    observed = Observed(guarded, (meters.record, write_line), tracing)
    meters.registry.register(Live(editions, access.log, observed))
    return observed


class _Served:
    """Runs one endpoint on the current edition, for as long as the client stays."""

    def __init__(
        self,
        editions: Editions,
        access: Access,
        crowd: Crowd,
        hosts: Collection[str],
        endpoint: Endpoint,
        *,
        is_open: bool = False,
    ) -> None:
        self._editions, self._access, self._crowd = editions, access, crowd
        self._hosts = hosts
        self._endpoint, self._is_open = endpoint, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless there are too many; what watches us is always answered."""
        with _NOBODY if scope["method"] == "GET" else self._crowd:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = None if self._is_open else await self._access.enter(scope)
        if key is None and not self._is_open:
            require_own_name(scope, self._hosts)
            require_same_origin(scope)  # nothing else would keep a page from asking
        body = {}
        if scope["method"] == "POST":
            require_same_origin(scope)
            require_plain(scope)
            body = await read_object(receive)
        with self._editions.lend() as composer:
            visit = Visit(
                access=self._access,
                request_id=scope["request_id"],
                key=key,
                registry=composer.registry,
            )
            scope["visit"] = visit
            asked = Asked(
                composer=composer,
                body=body,
                path=scope["path_params"],
                visit=visit,
                began=time.perf_counter(),
            )
            error: BaseException | None = None
            try:
                with WhileConnected(receive):
                    response = await self._endpoint(asked)
                    await response(scope, receive, send)
            except BaseException as caught:
                error = caught
                raise
            finally:  # also after a client that has read its answer has gone
                await visit.end(error)


@asynccontextmanager
async def _following(
    editions: Editions, is_file: bool, ends: Sequence[Callable[[], None]], _app: Any
) -> AsyncIterator[None]:
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
        for end in ends:
            await asyncio.to_thread(end)
