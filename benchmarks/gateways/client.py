"""A client that costs next to nothing: connections that each ask again once they are answered."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Load", "load", "request"]

_DONE = b"[DONE]"


@dataclass
class Load:
    """What came of one round.

    Args:
        waits: seconds from a request to the last byte of its answer.
        failures: what went wrong instead, in words.
        seconds: the whole round.
    """

    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def request(model: str, text: str, *, token: str = "", stream: bool = False) -> bytes:
    """Write a chat request."""
    fields = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64}
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\n"
    head += "content-type: application/json\r\n"
    head += f"authorization: Bearer {token}\r\n" if token else ""
    return head.encode() + b"\r\n" + body


async def load(
    port: int,
    sent: bytes,
    *,
    requests: Iterable[int],
    connections: int,
    seen: Callable[[bytes], object] = len,
) -> Load:
    """Ask until all requests were answered, each connection one at a time.

    Args:
        port: of the gateway.
        sent: one request.
        requests: one number each.
        connections: that take turns at them.
        seen: is told every answer.
    """
    found, left = Load(), iter(requests)
    opened = [await _open(port) for _ in range(connections)]
    began = time.perf_counter()
    await asyncio.gather(*(_asking(connection, sent, left, found, seen) for connection in opened))
    found.seconds = time.perf_counter() - began
    for connection in opened:
        connection.transport.close()
    return found


async def _open(port: int) -> "_Connection":
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
    return connection


async def _asking(
    connection: "_Connection",
    sent: bytes,
    left: Iterable[int],
    found: Load,
    seen: Callable[[bytes], object],
) -> None:
    for _ in left:
        began = time.perf_counter()
        try:
            answer = await connection.ask(sent)
        except ConnectionError as error:
            found.failures.append(repr(error))
            return
        seen(answer)
        if failure := _wrong(answer, sent):
            found.failures.append(failure)
        else:
            found.waits.append(time.perf_counter() - began)


def _wrong(answer: bytes, sent: bytes) -> str:
    """Say what is wrong with an answer; an empty text where nothing is."""
    if not answer.startswith(b"HTTP/1.1 200"):
        return answer[:500].decode(errors="replace")
    if b'"stream": true' in sent and (_DONE not in answer or answer.count(b"data: ") < 30):
        return f"a stream without its end: {answer[-500:].decode(errors='replace')}"
    return ""


class _Connection(asyncio.Protocol):
    """Sends one request at a time and finds the end of its answer."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, sent: bytes) -> "asyncio.Future[bytes]":
        self._answer = asyncio.get_running_loop().create_future()
        self._received, self._end = bytearray(), -1
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.transport.write(sent)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._end < 0 and (head := self._received.find(b"\r\n\r\n")) >= 0:
            self._end = head + 4 + _length(bytes(self._received[:head]))
        if self._end < 0:
            return
        is_whole = len(self._received) >= self._end > 0
        if (is_whole or self._received.endswith(b"\r\n0\r\n\r\n")) and self._answer:
            self._answer.set_result(bytes(self._received))
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the gateway hung up"))


def _length(head: bytes) -> int:
    """Return the length of a body, or one that is never reached where it comes in chunks."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 2**40
