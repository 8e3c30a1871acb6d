"""HTTP/1.1 as uvicorn speaks it, with an end to its patience and refusals in the API's shape.

uvicorn itself waits for ever for the rest of a request and for clients that do not read, takes
headers of any size, loses the body of a request that asks for HTTP/2 (``Upgrade: h2c``), and
answers what is no HTTP in plain text.
"""

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from composer.http.bodies import json_bytes
from composer.http.errors import ApiError
from composer.http.joined import Joined

__all__ = ["DoorProtocol", "Patience"]

logger = logging.getLogger(__name__)

MAX_HEAD = 65_536  # bytes of request line and headers
MAX_MESSAGE = 100_000_000  # bytes of a request with all its framing; the app reads far less
_AROUND_URL, _AROUND_HEADER = 20, 4  # bytes: method, version and line end; colon and line end
_LINGER = 1.0  # seconds between a refusal and the end of its connection


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a client may take, in seconds.

    Args:
        head: from the connection, or the first byte of a request, to the end of its headers.
        body: from there to the end of the body; ``rate`` bytes buy one second more.
        rate: bytes a second.
        write: without taking anything of what waits to be sent.
    """

    head: float = 15.0
    body: float = 30.0
    rate: int = 5_000
    write: float = 30.0


class _Waits(Enum):
    """What a client still owes us."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class DoorProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, patience: Patience | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience = patience or Patience()
        self._waits = _Waits.NOTHING
        self._since, self._received = 0.0, 0  # of the head or the body that is awaited
        self._head = 0  # bytes of the head that were understood
        self._awaiting: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._has_upgrade = self._is_refused = False

    # -- what comes in --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await(_Waits.HEAD)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        for timer in (self._awaiting, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(refusal := error.__context__, ApiError):  # raised by a callback
                self._refuse(refusal)
            else:
                self.send_400_response("request: is no HTTP/1.1; use an HTTP client")
        self._received += len(data)
        if not self._is_refused and not self.transport.is_closing():
            self._look_at_size()
            self._watch()

    def on_message_begin(self) -> None:
        """Note when a request began."""
        super().on_message_begin()
        self._await(_Waits.HEAD)
        self._head = _AROUND_URL

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those that follow a body are nobody's."""
        if self._waits is _Waits.HEAD:
            self._take(len(name) + len(value) + _AROUND_HEADER)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the app, except where the parser takes what follows for another protocol."""
        self._has_upgrade = self.parser.should_upgrade()
        if not self._has_upgrade:
            self._require_host()
            super().on_headers_complete()
            self._await(_Waits.BODY)

    def on_message_complete(self) -> None:
        """Wait for nothing more."""
        if not self._has_upgrade:
            super().on_message_complete()
            self._waits = _Waits.NOTHING

    def _without_upgrade(self, rest: bytes) -> None:
        """Read a request again as one that stays with HTTP/1.1, which every server may do."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("CONNECT: this is no proxy; ask it for its own paths")
            return
        is_last = any(n == b"connection" and b"close" in v.lower() for n, v in self.headers)
        kept = [(n, v) for n, v in self.headers if n not in (b"upgrade", b"connection")]
        kept += [(b"connection", b"close")] if is_last else []
        lines = [method + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in kept]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _require_host(self) -> None:
        """Refuse what a proxy before us may have read as for another host (RFC 9112, 3.2)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise ApiError(400, "host: send this header once", code="invalid_http")

    # -- patience -------------------------------------------------------------------------------

    def _await(self, what: _Waits) -> None:
        self._waits, self._since, self._received = what, self.loop.time(), 0

    def _take(self, size: int) -> None:
        """Count what has come of a head at once, of which there may be a body's worth."""
        self._head += size
        if self._head > MAX_HEAD:
            raise _too_large()

    def _look_at_size(self) -> None:
        if self._waits is _Waits.HEAD and self._received > MAX_HEAD:
            self._refuse(_too_large())
        elif self._received > MAX_MESSAGE:
            self.transport.abort()

    def _watch(self) -> None:
        """Set the clock, where a request has not come whole: most of them have."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if self._waits is _Waits.NOTHING and is_idle:
            self._await(_Waits.HEAD)  # bytes between requests, which begin none
        if self._waits is not _Waits.NOTHING and self._awaiting is None:
            self._awaiting = self.loop.call_later(self._left(), self._lose_patience)

    def _left(self) -> float:
        limits = self._patience
        seconds = limits.head
        if self._waits is _Waits.BODY:
            seconds = limits.body + self._received / limits.rate
        return self._since + seconds - self.loop.time()

    def _lose_patience(self) -> None:
        self._awaiting = None
        if self._waits is _Waits.NOTHING or self.transport.is_closing():
            return
        if self.flow.read_paused:  # then it is we who let the client wait
            self._since = self.loop.time()
        if self._left() > 0:
            self._watch()
        elif self._waits is _Waits.HEAD and not self._received:
            self.transport.close()  # nothing was asked
        else:
            what = "headers" if self._waits is _Waits.HEAD else "body"
            message = f"{what}: did not come in time; send them at once"
            self._refuse(ApiError(408, message, code="request_timeout"))

    # -- what goes out --------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        self._refuse(ApiError(400, msg, code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        """Answer in place of the app and hang up; an answer that has begun just ends."""
        is_asked = self.cycle is not None and not self.cycle.response_complete
        if is_asked and (self.cycle.response_started or self.pipeline):
            self.transport.close()
        else:
            self._answer(error)
        if is_asked:  # the app is to hear it before it writes again
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _answer(self, error: ApiError) -> None:
        """Write the last answer; closing at once would lose it to who is still sending."""
        self._is_refused = True
        request_id, body = f"req_{uuid4().hex}", json_bytes(error.body)
        logger.info("%s: answered %s %s", request_id, error.status, error.code)
        head = (
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        )
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in head)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if cycle.scope["method"] != "HEAD":  # whose answer is a head alone
            cycle.transport = Joined(self.transport)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or see the answer out."""
        super().on_response_complete()
        self._see_out()

    def timeout_keep_alive_handler(self) -> None:
        """Hang up on a client that has nothing more to ask."""
        super().timeout_keep_alive_handler()
        self._see_out()

    def pause_writing(self) -> None:
        """Wait for a client that reads slowly, for a while."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _see_out(self) -> None:
        """A closing connection stays until its client has read what waits, or for ``write``."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._expect_reading()

    def _expect_reading(self) -> None:
        if self._writing is None:
            size = self.transport.get_write_buffer_size()
            self._writing = self.loop.call_later(self._patience.write, self._give_up, size)

    def _give_up(self, before: int) -> None:
        self._writing = None
        if 0 < self.transport.get_write_buffer_size() < before:
            self._expect_reading()
        elif self.transport.get_write_buffer_size():
            logger.info("a client that does not read was disconnected")
            self.transport.abort()


def _too_large() -> ApiError:
    return ApiError(
        431,
        f"headers: are larger than {MAX_HEAD} bytes with the address; send less",
        code="headers",
    )
