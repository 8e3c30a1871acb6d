"""GET /health, /health/ready, /admin/registry, and the document itself."""

from typing import Any

from composer.http.openapi.operation import OPEN, Operation
from composer.http.openapi.shape import Shape

__all__ = ["DOCUMENT", "HEALTH", "READY", "REGISTRY"]


class Health(Shape):
    """Whether it runs."""

    status: str


class Reload(Shape):
    """How the last edit of the file went."""

    ok: bool
    time: str
    error: str | None


class RegistryState(Shape):
    """Which edition of the expert file serves."""

    generation: int
    digest: str
    experts: list[str]
    compositions: list[str]
    last_reload: Reload | None


class OpenApi(Shape):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    security: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]


HEALTH = Operation(
    id="health", summary="Say that the process answers.", answer=Health, errors=OPEN, is_open=True
)
READY = Operation(
    id="ready",
    summary="Say whether a request could be answered.",
    answer=Health,
    errors=OPEN,
    others={503: Health},
    is_open=True,
)
REGISTRY = Operation(
    id="retrieveRegistry", summary="Say which edition of the file serves.", answer=RegistryState
)
DOCUMENT = Operation(
    id="openapi",
    summary="Tell what this document tells.",
    answer=OpenApi,
    errors=OPEN,
    is_open=True,
)
