"""Read server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

__all__ = ["Event", "read_events"]

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event; ``name`` is empty for the usual kind."""

    data: str
    name: str = ""


async def read_events(body: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """Parse a body as it arrives; an event that the end cuts off is dropped."""
    fields: dict[str, list[str]] = {}
    async for line in _lines(body):
        if not line:
            if "data" in fields:
                yield Event("\n".join(fields["data"]), fields.get("event", [""])[-1])
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


async def _lines(body: AsyncIterable[bytes]) -> AsyncIterator[str]:
    # Not str.splitlines: it also splits at U+2028 and the like, which JSON strings may hold.
    rest = b""
    async for chunk in body:
        rest += chunk
        # A final \r may be the first half of \r\n: it waits for the next chunk.
        held = b"\r" if rest.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(rest.removesuffix(held))
        rest += held
        for line in lines:
            yield line.decode(errors="replace").removeprefix("\ufeff")
    *lines, _ = _LINE_END.split(rest)
    for line in lines:
        yield line.decode(errors="replace")
