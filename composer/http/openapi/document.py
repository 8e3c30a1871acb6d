"""GET /openapi.json: the document, made of the routes that are served."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from composer.http.asked import Asked, Endpoint
from composer.http.bodies import json_bytes
from composer.http.openapi.errors import ErrorResponse, responses
from composer.http.openapi.headers import HEADERS
from composer.http.openapi.operation import shapes_of, written
from composer.http.openapi.paths import OPERATIONS
from composer.http.openapi.shape import Shape

__all__ = ["describing", "document", "served"]

_FILES, _ROOT = "/ui/", "/"  # what a browser finds from /ui, and what leads there
_ABOUT = (
    "OpenAI's API over the experts of one file. Unknown keys of a request are allowed and go to "
    "experts that are remote servers; a key that is `null` counts as left out. An API key is "
    "needed from the first one on that was made."
)


def describing(routes: Sequence[Route]) -> Endpoint:
    """Return the endpoint that tells what these routes are; it makes the document once."""

    @cache
    def made() -> bytes:
        return json_bytes(document(routes))

    async def openapi(_asked: Asked) -> ASGIApp:
        return Response(made(), media_type="application/json")

    return openapi


def served(routes: Sequence[Route]) -> Iterator[tuple[str, str]]:
    """Yield method and path of what routes answer; HEAD goes with GET, files with their page."""
    for route in routes:
        if route.path == _ROOT or route.path.startswith(_FILES):
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield method, route.path_format


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of the routes that `OPERATIONS` describes."""
    found = [
        (method, path, OPERATIONS[name])
        for method, path in served(routes)
        if (name := f"{method} {path}") in OPERATIONS
    ]
    shapes: set[type[Shape]] = {ErrorResponse, *(s for *_, one in found for s in shapes_of(one))}
    references, schemas = models_json_schema(
        [(shape, "validation") for shape in sorted(shapes, key=lambda shape: shape.__name__)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )

    def refer(shape: type[Shape]) -> dict[str, Any]:
        return references[shape, "validation"]

    paths: dict[str, dict[str, Any]] = {}
    for method, path, operation in found:
        paths.setdefault(path, {})[method.lower()] = written(operation, path, refer)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "expert-composer",
            "version": version("expert-composer"),
            "description": _ABOUT,
        },
        "security": [{"bearer": []}, {}],  # {}: without one, until there is a first key
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "headers": HEADERS,
            "responses": responses(refer(ErrorResponse)),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Untitled(GenerateJsonSchema):
    """Writes no titles, which would repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Say that no field needs one."""
        return False
