"""Read server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import httpx

__all__ = ["MAX_EVENT", "Event", "read_events"]

MAX_EVENT = 16 * 2**20
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event; ``name`` is empty for the usual kind."""

    data: str
    name: str = ""


async def read_events(body: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """Parse a body as it arrives; an event that the end cuts off is dropped.

    Raises:
        httpx.DecodingError: an event is larger than any that we would keep in memory.
    """
    fields: dict[str, list[str]] = {}
    size = 0
    async for line in _lines(body):
        if not line:
            if "data" in fields:
                yield Event("\n".join(fields["data"]), fields.get("event", [""])[-1])
            fields, size = {}, 0
        elif not line.startswith(":"):
            size = _bounded(size + len(line))
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


async def _lines(body: AsyncIterable[bytes]) -> AsyncIterator[str]:
    # Not str.splitlines: it also splits at U+2028 and the like, which JSON strings may hold.
    begun: list[bytes] = []  # of the current line; looked through once, however long it grows
    size, held = 0, b""
    async for chunk in body:
        piece = held + chunk
        # A final \r may be the first half of \r\n: it waits for the next chunk.
        held = b"\r" if piece.endswith(b"\r") else b""
        *ends, rest = _LINE_END.split(piece.removesuffix(held))
        for end in ends:
            yield _decoded(begun, end)
            begun, size = [], 0
        begun.append(rest)
        size = _bounded(size + len(rest))
    if held:
        yield _decoded(begun, b"")


def _decoded(begun: list[bytes], end: bytes) -> str:
    return b"".join([*begun, end]).decode(errors="replace").removeprefix("\ufeff")


def _bounded(size: int) -> int:
    if size > MAX_EVENT:
        raise httpx.DecodingError(f"an event of more than {MAX_EVENT} bytes")
    return size
