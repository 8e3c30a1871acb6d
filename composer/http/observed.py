"""Watches every request from its first byte to its last: metrics, the access log, a trace."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from composer.decision_sums import HUNG_UP
from composer.http.finished import Finished

if TYPE_CHECKING:
    from composer.http.tracing import Tracing

__all__ = ["Observed"]

_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")  # clients choose others


class Observed:
    """Runs an app, and tells observers what each of its requests came to.

    Args:
        app: whose requests; it leaves ``request_id``, and ``status`` and ``visit`` where it comes
            so far, in the scope.
        observers: called with each finished request.
        tracing: opens a span around each, if traces are wanted.
    """

    def __init__(
        self,
        app: ASGIApp,
        observers: Sequence[Callable[[Finished], None]],
        tracing: "Tracing | None" = None,
    ) -> None:
        self._app, self._observers, self._tracing = app, observers, tracing
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        tracing = self._tracing
        span = None if tracing is None else tracing.begin(scope["headers"])
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
            done = _finished(scope, began)
            for observe in self._observers:
                observe(done)
            if tracing is not None and span is not None:
                tracing.end(span, done)


def _finished(scope: Scope, began: float) -> Finished:
    route = scope.get("route")
    return Finished(
        request_id=scope.get("request_id", ""),
        method=scope["method"] if scope["method"] in _METHODS else "(unknown)",
        route=getattr(route, "path", "(unknown)"),
        status=scope.get("status", HUNG_UP),
        began=began,
        ended=time.perf_counter(),
        visit=scope.get("visit"),
        client_request_id=scope.get("client_request_id", ""),
    )
