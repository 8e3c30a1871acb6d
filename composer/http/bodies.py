"""Request bodies: read within limits, as one JSON object; answers as JSON."""

import json
import math
import re
from typing import Any, NoReturn

from pydantic_core import PydanticSerializationError, to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive

from composer.http.errors import ApiError

__all__ = ["MAX_BYTES", "JsonResponse", "json_bytes", "read_object"]

MAX_BYTES = 10_000_000
MAX_DEPTH = 64
_MOST_DISCARDED = 5 * MAX_BYTES
# Linear: a string without an end is taken to the end, not tried again from each quote inside.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # once: building it is slow


async def read_object(receive: Receive) -> dict[str, Any]:
    """Read the JSON object of a request.

    Raises:
        ApiError: the body is too large, or no JSON object.
        ClientDisconnect: the client went away before it had sent everything.
    """
    body = await _read(receive)
    try:
        text = body.decode()  # strictly: json would let half a surrogate pair through
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _require_flat(text)
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:  # half a surrogate pair is no text, and no tokenizer reads it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        what = "is empty" if not body.strip() else f"is not JSON: {_said(error)}"
        raise ApiError(
            400, f"body: {what}; send one JSON object in UTF-8", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise ApiError(
            400,
            f"body: is a JSON {type(value).__name__}; send one JSON object",
            code="invalid_type",
        )
    return value


async def _read(receive: Receive) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size <= MAX_BYTES:
            pieces.append(piece)
        is_last = not message.get("more_body", False)
        # Read on for a while: a client that is still sending does not hear an answer.
        if size > _MOST_DISCARDED or (is_last and size > MAX_BYTES):
            raise _too_large()
        if is_last:
            return b"".join(pieces)


def _too_large() -> ApiError:
    return ApiError(
        413,
        f"body: is larger than {MAX_BYTES} bytes; send less",
        code="request_too_large",
        headers={"connection": "close"},
    )


def _require_flat(text: str) -> None:
    depth = 0
    for found in _BRACKETS.finditer(text):
        match found.group()[:1]:
            case "[" | "{":
                depth += 1
                if depth > MAX_DEPTH:
                    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            case "]" | "}":
                depth -= 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _said(error: Exception) -> str:
    """Say what is wrong without quoting the body."""
    match error:
        case json.JSONDecodeError():
            return f"{error.msg} at byte {error.pos}"
        case UnicodeDecodeError():
            return f"no UTF-8 at byte {error.start}"
        case UnicodeEncodeError():
            return "half a surrogate pair in a text"
        case RecursionError():
            return f"nested deeper than {MAX_DEPTH} levels"
    return str(error)


def json_bytes(value: Any) -> bytes:
    """Write JSON; NaN, which it does not know, becomes null."""
    try:
        return to_json(value, inf_nan_mode="null")  # compiled: a quarter of the time
    except PydanticSerializationError:  # half a surrogate pair, which only an escape can write
        return _ENCODER.encode(_finite(value)).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JsonResponse(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the body."""
        return json_bytes(content)
