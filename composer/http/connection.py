"""One request from its first byte to its last: its id, its errors, and a client that leaves."""

import asyncio
import logging
import traceback
from contextlib import suppress
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from composer.http.bodies import JsonResponse, json_bytes, raw_headers
from composer.http.errors import ApiError, api_error, overloaded, unexpected
from composer.http.headers import told_too_late
from composer.http.rate_headers import rates_left
from composer.identifiers import new_id
from composer.keys import is_token
from experts_registry.errors import ComposerError, DatabaseError

__all__ = ["Guarded", "WhileConnected"]

logger = logging.getLogger(__name__)

_CLIENT_ID = b"x-client-request-id"
_LONGEST_ID = 128  # bytes
_PATIENCE = 0.05  # seconds
_LAST_WORDS = 1.0  # seconds for a client that may read nothing


class WhileConnected:
    """Cancels what is inside when the client hangs up; its request must have been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        # Never None in a coroutine.
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        # Most answers are there before it is worth a task to watch for a client that leaves.
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._watch)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._timer.cancel()
        if self._watcher is None:
            return
        if not self._watcher.done():
            self._watcher.cancel()
        elif isinstance(error, asyncio.CancelledError) and not self._watcher.cancelled():
            self._task.uncancel()
            raise ClientDisconnect from None

    def _watch(self) -> None:
        self._watcher = asyncio.create_task(self._cancel_at_hangup())

    async def _cancel_at_hangup(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._task.cancel()


class Guarded:
    """Gives every answer an ``x-request-id``, and every failure the API's shape.

    A name that the client has given its request comes back beside it.

    What was answered is left in ``scope["status"]``.

    A failure after the first byte of a stream becomes its last event; there is no [DONE] then.
    A stream that has events of its own for it says so in ``scope["failed_event"]``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["app"] = self  # makes the router raise what it would answer as plain text
        scope.setdefault("request_id", f"req_{new_id()}")
        scope["client_request_id"] = _chosen_by_client(scope)
        sending = _Sending(send, scope)
        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            logger.info("%s: the client hung up", sending.request_id)
        except asyncio.CancelledError:  # the server ends: clients that still wait are told
            ending = overloaded("it is shutting down; ask again")
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await sending.fail(ending, scope, receive)
        except ComposerError as error:
            if isinstance(error, DatabaseError):
                logger.error("%s: %s", sending.request_id, error)  # which clients are not told
            await sending.fail(api_error(error), scope, receive)
        except HTTPException as error:
            await sending.fail(_no_such_path(error, scope), scope, receive)
        except Exception as error:  # noqa: BLE001 - the one place: to log it and answer 500
            # Without its message, which may quote a prompt.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s: %s\n%s", sending.request_id, type(error).__name__, where)
            await sending.fail(unexpected(), scope, receive)


class _Sending:
    """Sends an answer, and knows how far it has come."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send, self._scope = send, scope
        self.request_id: str = scope["request_id"]
        self._is_started = self._is_complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            headers = {"x-request-id": self.request_id, **rates_left(self._scope.get("visit"))}
            if name := self._scope["client_request_id"]:
                headers["x-client-request-id"] = name
            message["headers"] = [*message["headers"], *raw_headers(headers)]
            self._scope["status"] = message["status"]
        elif message["type"] == "http.response.body":
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Tell the client, in the way that is still open."""
        if error.status >= 500:
            logger.warning("%s: answered %s %s", self.request_id, error.status, error.code)
        if self._is_complete:
            return
        if not self._is_started:
            headers = {**told_too_late(scope.get("visit")), **error.headers}
            response = JsonResponse(error.body, error.status, headers=headers)
            await response(scope, receive, self)
            return
        event: bytes = scope.get("failed_event", _failed_event)(error)
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _chosen_by_client(scope: Scope) -> str:
    """Return the client's own name of its request; an empty text where it is not fit for a log."""
    sent: bytes = next((value for name, value in scope["headers"] if name == _CLIENT_ID), b"")
    name = sent.decode("latin-1")
    is_fit = len(name) <= _LONGEST_ID and name.isascii() and name.isprintable()
    return name if is_fit and not is_token(name) else ""


def _failed_event(error: ApiError) -> bytes:
    return b"data: " + json_bytes(error.body) + b"\n\n"


def _no_such_path(error: HTTPException, scope: Scope) -> ApiError:
    """Return the error for a path or a method that is not served."""
    what = f"{scope['method']} {scope['path']}"
    if error.status_code == 405:
        allowed = _allowed(scope)
        return ApiError(
            405,
            f"{what}: this method is not served here; use {allowed}",
            code="method_not_allowed",
            headers={"allow": allowed},
        )
    return ApiError(
        error.status_code,
        f"{what}: is not served; see GET /v1/models and POST /v1/chat/completions",
        code="unknown_url",
    )


def _allowed(scope: Scope) -> str:
    """Return the methods of all routes of a path; the router names those of the first."""
    routes = [one for one in scope["router"].routes if one.matches(scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for one in routes for method in one.methods}))
