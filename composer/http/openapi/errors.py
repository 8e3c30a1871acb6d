"""The one shape of all errors, and what each status means."""

from typing import Any

from pydantic import Field

from composer.http.openapi.headers import REQUEST_ID
from composer.http.openapi.shape import Shape

__all__ = ["ErrorResponse", "responses"]

_AGAIN = ("retry-after", "retry-after-ms", "x-should-retry")
_MEANINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request is wrong, or no expert can do what it asks.", ()),
    401: ("A key is needed, and none that works was sent.", ("www-authenticate", "x-should-retry")),
    403: ("The key is not for this.", ("x-should-retry",)),
    404: ("There is nothing of that name.", ()),
    408: ("The request did not come in time.", ()),
    413: ("The body is too large.", ()),
    415: ("The body is compressed.", ()),
    422: ("No expert is expected to do well enough.", ()),
    429: ("A limit of the key is reached, or the expert is busy.", _AGAIN),
    431: ("The headers are too large.", ()),
    500: ("A mistake of the server.", ()),
    502: ("The expert answered what nobody understands.", ("x-should-retry",)),
    503: ("Experts failed, too many ask, or a database does not answer.", _AGAIN),
    504: ("The expert took too long.", ("x-should-retry",)),
}


class Error(Shape):
    """What is wrong; all four keys are always there."""

    message: str
    type: str = Field(description="`invalid_request_error`, `server_error`, `timeout_error` ...")
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="`model_not_found`, `invalid_value` ...")


class ErrorResponse(Shape):
    """An error."""

    error: Error


def responses(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to every status that is an error."""
    content = {"application/json": {"schema": schema}}
    return {
        str(status): {
            "description": meaning,
            "headers": {n: {"$ref": f"#/components/headers/{n}"} for n in (REQUEST_ID, *names)},
            "content": content,
        }
        for status, (meaning, names) in _MEANINGS.items()
    }
