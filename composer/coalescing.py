"""Join the pieces of an answer that come close together, where each one sent has a price."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress

from experts_registry.types import Chunk

__all__ = ["coalesced"]


async def coalesced(chunks: AsyncIterator[Chunk], seconds: float) -> AsyncGenerator[Chunk]:
    """Pass the first piece on at once, and what comes later at most every ``seconds``.

    No piece waits longer than that, whether or not another one follows it.
    """
    come: list[Chunk] = []
    is_news = asyncio.Event()

    async def read() -> None:
        try:
            async with aclosing(chunks) as every:  # type: ignore[type-var]
                async for chunk in every:
                    come.append(chunk)
                    is_news.set()
        finally:
            is_news.set()

    reading = asyncio.create_task(read())
    try:
        while come or not reading.done():
            await is_news.wait()
            is_news.clear()
            ready, come[:] = list(_joined(come)), []
            for chunk in ready:
                yield chunk
            await asyncio.wait({reading}, timeout=seconds)
        await reading  # raises what the expert raised
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({reading})


def _joined(chunks: list[Chunk]) -> Iterator[Chunk]:
    """Yield the same answer in fewer pieces; one that carries more than text stays as it is."""
    text = ""
    for chunk in chunks:
        if chunk == Chunk(chunk.text):
            text += chunk.text
            continue
        if text:
            yield Chunk(text)
            text = ""
        yield chunk
    if text:
        yield Chunk(text)
