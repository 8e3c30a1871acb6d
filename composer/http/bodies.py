"""Request bodies: read within limits, as one JSON object; answers as JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from composer.http.errors import ApiError

__all__ = ["MAX_BYTES", "JsonResponse", "json_bytes", "raw_headers", "read_object", "require_plain"]

MAX_BYTES = 10_000_000
# A small value takes 20 times the memory that it takes in a body.
MAX_LISTS = 50_000  # and objects
MAX_TEXTS = 200_000
MAX_VALUES = 1_000_000  # numbers included
_MOST_DISCARDED = 5 * MAX_BYTES

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # once: building it is slow


def require_plain(scope: Scope) -> None:
    """Refuse a compressed body, of which a few bytes may stand for any number.

    Raises:
        ApiError: the request says that its body is encoded.
    """
    encodings = {value for name, value in scope["headers"] if name == b"content-encoding"}
    if encodings - {b"", b"identity"}:
        raise ApiError(
            415,
            "content-encoding: compressed bodies are not read; send it as it is",
            code="unsupported_encoding",
            headers={"accept-encoding": "identity", "connection": "close"},
        )


async def read_object(receive: Receive) -> dict[str, Any]:
    """Read the JSON object of a request.

    Raises:
        ApiError: the body is too large, or no JSON object.
        ClientDisconnect: the client went away before it had sent everything.
    """
    body = await _read(receive)
    try:
        _require_few(body)
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:  # says where, and quotes nothing
        what = "is empty" if not body.strip() else f"is not JSON: {error}"
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


def _require_few(body: bytes) -> None:
    """Refuse a body of very many values: reading it would hold everybody up, and fill memory.

    Each pass over the bytes takes milliseconds for the largest body; no value is made for it.
    """
    if _is_small(body) and body.count(b'"') <= 2 * MAX_TEXTS:
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # a quote now begins or ends a text
    if bare.count(b'"') > 2 * MAX_TEXTS or not _is_small(b"".join(bare.split(b'"')[::2])):
        raise ApiError(
            400,
            f"body: has more than {MAX_VALUES} values, {MAX_TEXTS} of them texts and {MAX_LISTS} "
            "lists or objects; send less at once",
            code="too_many_values",
        )


def _is_small(bare: bytes) -> bool:
    return bare.count(b"[") + bare.count(b"{") <= MAX_LISTS and bare.count(b",") < MAX_VALUES


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


class JsonResponse:
    """A JSON answer.

    Args:
        content: its value.
        status_code: of HTTP.
        headers: further ones, with names in lower case.
    """

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._body, self._status = json_bytes(content), status_code
        self._headers = {
            **(headers or {}),
            "content-length": str(len(self._body)),
            "content-type": "application/json",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = raw_headers(self._headers)
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
