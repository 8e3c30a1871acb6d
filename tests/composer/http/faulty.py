"""An upstream that fails in every way a server can, chosen by the path; raw TCP."""

import asyncio
import json
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET
from threading import Thread

__all__ = ["BEFORE", "MIDDLE", "Faulty", "serving"]

# Faults that show before the first piece of an answer, and those of a stream that has begun.
BEFORE = (
    "refuse",
    "reset",
    "hang",
    "slow-headers",
    "429",
    "500",
    "503",
    "401",
    "html",
    "truncated",
    "empty",
    "binary",
    "in-band",
    "oversized",
    "half-500",
)
MIDDLE = ("cut-stream", "stalled-stream", "in-band-stream")

_ANSWER = {
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "well"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
_JSON, _HTML = "application/json", "text/html"


class Faulty:
    """Counts what it was asked, by fault."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = next(
            int(line.split(":")[1])
            for line in head.splitlines()
            if line.lower().startswith("content-length")
        )
        asked = json.loads(await reader.readexactly(size))
        fault = head.split()[1].split("/")[1]
        key = head.lower().partition("authorization: bearer ")[2].partition("\r\n")[0]
        self.calls[fault] += 1
        await self._answer(writer, fault, key, is_streamed=asked["stream"])
        await writer.drain()

    async def _answer(
        self, writer: asyncio.StreamWriter, fault: str, key: str, *, is_streamed: bool
    ) -> None:
        error = json.dumps({"error": {"message": f"no: {key}"}})
        if fault == "half-500":
            fault = "500" if self.calls[fault] % 2 else "ok"
        match fault:
            case "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            case "hang":
                await asyncio.sleep(60)
            case "slow-headers":
                for byte in b"HTTP/1.1 200 OK\r\n" + b"x-slow: yes\r\n" * 20:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.2)
            case "429":
                _write(writer, 429, _JSON, error, "retry-after: 7\r\n")
            case "500" | "503" | "401":
                _write(writer, int(fault), _JSON, error)
            case "html":
                _write(writer, 200, _HTML, "<html><body>Welcome</body></html>")
            case "truncated":
                _write(writer, 200, _JSON, json.dumps(_ANSWER)[:40])
            case "empty":
                _write(writer, 200, _JSON, "")
            case "binary":
                _write(writer, 200, "application/octet-stream", "\0\1\2" * 50)
            case "in-band":
                _write(writer, 200, _JSON, error)
            case "oversized":
                _write(writer, 200, _JSON, '{"choices": "' + "x" * (17 * 2**20))
            case _ if is_streamed:
                await self._stream(writer, fault)
            case _:
                _write(writer, 200, _JSON, json.dumps(_ANSWER))

    async def _stream(self, writer: asyncio.StreamWriter, fault: str) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        for text in ("we", "ll"):
            _event(writer, {"choices": [{"index": 0, "delta": {"content": text}}]})
            await writer.drain()
        match fault:
            case "cut-stream":
                return
            case "stalled-stream":
                await asyncio.sleep(60)
            case "in-band-stream":
                _event(writer, {"error": {"message": "ran out", "type": None}})
            case _:
                end = {"index": 0, "delta": {}, "finish_reason": "stop"}
                _event(writer, {"choices": [end], "usage": _ANSWER["usage"]})
                writer.write(b"data: [DONE]\n\n")


def _write(
    writer: asyncio.StreamWriter, status: int, content_type: str, body: str, more: str = ""
) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{more}"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())


def _event(writer: asyncio.StreamWriter, value: object) -> None:
    writer.write(f"data: {json.dumps(value)}\n\n".encode())


@contextmanager
def serving(faulty: Faulty) -> Iterator[str]:
    """Serve on a loopback port; yield the address."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(faulty, "127.0.0.1", 0))
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in the turns after

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
