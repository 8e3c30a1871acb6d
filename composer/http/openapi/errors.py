"""The one shape of all errors, and what each status means."""

from typing import Any

from pydantic import Field

from composer.http.openapi.headers import ANSWERED, EVERYWHERE, LIMITED, of
from composer.http.openapi.shape import Shape

__all__ = ["ErrorResponse", "responses"]

_STOP = ("x-should-retry",)
_AGAIN = ("retry-after", "retry-after-ms", *_STOP)
_MEANINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request is wrong, or no expert can do what it asks.", (*_STOP, *ANSWERED)),
    401: ("A key is needed, and none that works was sent.", ("www-authenticate", *_STOP)),
    403: ("The key is not for this, or a page of another site asks.", _STOP),
    404: ("There is nothing of that name.", ()),
    408: ("The request did not come in time.", ()),
    413: ("The body is too large.", ()),
    415: ("The body is compressed.", ()),
    422: ("No expert is expected to do well enough.", ANSWERED),
    429: ("A limit of the key is reached, or the expert is busy.", (*_AGAIN, *ANSWERED)),
    431: ("The headers are too large.", ()),
    500: ("A mistake of the server.", (*_STOP, *ANSWERED)),
    502: ("The expert answered what nobody understands.", (*_STOP, *ANSWERED)),
    503: ("Experts failed, too many ask, or a database does not answer.", (*_AGAIN, *ANSWERED)),
    504: ("The expert took too long.", (*_STOP, *ANSWERED)),
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
            "headers": of(EVERYWHERE, (*names, *LIMITED)),
            "content": content,
        }
        for status, (meaning, names) in _MEANINGS.items()
    }
