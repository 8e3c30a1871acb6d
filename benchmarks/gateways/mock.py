"""An upstream that costs next to nothing: a fixed answer, or a fixed stream of 34 events.

python benchmarks/gateways/mock.py PORT
"""

import asyncio
import json
import sys
from typing import Any

import uvloop

__all__ = ["EVENTS", "Upstream", "serve"]

EVENTS = 34  # data events before [DONE], the first says the role, the last two end it
_WORDS = "The little boat that you mean is most often called a dinghy, and sometimes a skiff. " * 2
_USAGE = {"prompt_tokens": 21, "completion_tokens": 31, "total_tokens": 52}
_HEAD = {"id": "chatcmpl-0123456789abcdef", "created": 1795618665, "model": "mock"}


def _answer() -> bytes:
    message = {"role": "assistant", "content": _WORDS, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    whole = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
    body = json.dumps(whole).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _stream() -> list[bytes]:
    """Return what is written, one event each; the first comes with the head."""
    words = _WORDS.split(" ")[: EVENTS - 3]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f"{word} "} for word in words]
    pieces = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    pieces.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    values = [{**_HEAD, "object": "chat.completion.chunk", "choices": piece} for piece in pieces]
    values.append({**values[0], "choices": [], "usage": _USAGE})
    events = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    assert len(events) == EVENTS
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in (*events, b"data: [DONE]\n\n")]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    return [head + b"\r\n" + chunks[0], *chunks[1:], b"0\r\n\r\n"]


class Upstream(asyncio.Protocol):
    """One connection."""

    answer, stream = _answer(), _stream()

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        """Keep what is written to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once a request is complete."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._received = b""
        if b'"stream":true' in body.replace(b" ", b""):
            self._write(0)
        else:
            self._transport.write(self.answer)

    def _write(self, number: int) -> None:
        # One event a turn of the loop: written in one turn they would leave as one.
        if self._transport.is_closing():
            return
        self._transport.write(self.stream[number])
        if number + 1 < len(self.stream):
            asyncio.get_running_loop().call_soon(self._write, number + 1)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(port: int) -> None:
    """Answer until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
