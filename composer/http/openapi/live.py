"""GET /admin/status, /metrics and /ui: for who watches the server."""

from typing import Literal

from composer.http.openapi import headers
from composer.http.openapi.operation import OPEN, Operation
from composer.http.openapi.shape import Shape
from composer.http.openapi.state import Reload
from composer.status import BreakerState, Tier

__all__ = ["METRICS", "PAGE", "STATUS"]


class Sums(Shape):
    """What was asked, and what it took."""

    requests: int
    errors: int
    mean_ms: float | None
    usd: float


class Span(Sums):
    """Of a minute or an hour."""

    time: str


class Expert(Sums):
    """One expert; of a retriever it is not known how busy it is."""

    name: str
    kind: Literal["llm", "retriever"]
    backend: str
    tier: Tier | None
    in_flight: int | None
    waiting: int | None
    breaker: BreakerState | None


class Status(Shape):
    """How the server and its experts fare."""

    object: Literal["status"]
    generation: int
    digest: str
    last_reload: Reload | None
    since: str
    experts: list[Expert]
    today: Sums
    minutes: list[Span]
    hours: list[Span]


STATUS = Operation(
    id="retrieveStatus", summary="Tell how the server and its experts fare.", answer=Status
)
METRICS = Operation(
    id="metrics", summary="Tell what was counted, for Prometheus.", media="text/plain"
)
PAGE = Operation(
    id="page",
    summary="Show the page for people.",
    media="text/html",
    headers=headers.PAGE,
    errors=OPEN,
    is_open=True,
)
