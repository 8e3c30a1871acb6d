"""One method of one path: what it takes, what it answers, and that written as OpenAPI."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from composer.http.openapi.errors import ErrorResponse
from composer.http.openapi.headers import EVERYWHERE, LIMITED, STREAMED, of
from composer.http.openapi.shape import Shape

__all__ = ["ASKING", "OPEN", "POSTING", "READING", "Operation", "shapes_of", "written"]

JSON, EVENTS = "application/json", "text/event-stream"
OPEN = (400, 408, 431, 500)  # also of what is hardly a request
READING = (*OPEN, 401, 403, 503)
POSTING = (*READING, 413, 415, 429)
ASKING = (*POSTING, 404, 422, 502, 504)  # what calls to experts may end in

Refer = Callable[[type[Shape]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What one method of one path takes and answers.

    Args:
        id: what generated clients call it; OpenAI's name where the path is OpenAI's.
        summary: one line.
        answer: the JSON object of status 200; None where ``media`` is a text.
        media: the content type of the answer.
        ask: the JSON object that is posted.
        event: every event of the answer to ``stream: true``.
        errors: statuses that come with an error object.
        others: answers with a status other than 200 that are no error objects.
        headers: names of headers of the answer, see `headers.py`.
        is_open: nobody needs a key.
    """

    id: str
    summary: str
    answer: type[Shape] | None = None
    media: str = JSON
    ask: type[Shape] | None = None
    event: type[Shape] | None = None
    errors: tuple[int, ...] = READING
    others: Mapping[int, type[Shape]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    is_open: bool = False


def shapes_of(operation: Operation) -> Iterator[type[Shape]]:
    """Yield the objects that it names."""
    for shape in (operation.ask, operation.answer, operation.event, *operation.others.values()):
        if shape is not None:
            yield shape


def written(operation: Operation, path: str, refer: Refer) -> dict[str, Any]:
    """Return an operation as OpenAPI has it; ``refer`` turns a shape into a reference."""
    value: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": _responses(operation, refer),
    }
    if names := re.findall(r"{(\w+)}", path):
        value["parameters"] = [_parameter(name) for name in names]
    if operation.ask is not None:
        content = {JSON: {"schema": refer(operation.ask)}}
        value["requestBody"] = {"required": True, "content": content}
    if operation.is_open:
        value["security"] = []
    return value


def _responses(operation: Operation, refer: Refer) -> dict[str, Any]:
    schema = {"type": "string"} if operation.answer is None else refer(operation.answer)
    content: dict[str, Any] = {operation.media: {"schema": schema}}
    if operation.event is not None:
        # The schema is that of one event's data, as in OpenAI's own document.
        content[EVENTS] = {"schema": {"anyOf": [refer(operation.event), refer(ErrorResponse)]}}
    streamed = STREAMED if operation.event is not None else ()
    limited = () if operation.is_open else LIMITED
    headers = of((*EVERYWHERE, *operation.headers, *streamed, *limited))
    responses: dict[str, Any] = {
        "200": {"description": _what(operation), "headers": headers, "content": content}
    }
    for status, shape in operation.others.items():
        content = {JSON: {"schema": refer(shape)}}
        responses[str(status)] = {
            "description": operation.summary, "headers": of(EVERYWHERE), "content": content,
        }  # fmt: skip
    for status in sorted(operation.errors):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def _what(operation: Operation) -> str:
    if operation.event is None:
        return "The answer."
    return (
        "The answer; with `stream: true` as server-sent events, the data of each one such JSON "
        "object, or an error where the answer broke off."
    )


def _parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "May hold slashes, encoded or not.",
        "schema": {"type": "string", "minLength": 1},
    }
