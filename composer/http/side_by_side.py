"""Several prompts of one request: their answers as one answer, their streams as one stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from composer.http.answers import Events, EventStream, begin
from composer.http.asked import Asked
from composer.http.passages import wish_of
from composer.streaming import ChunkStream, Progress
from composer.trace import Answer
from experts_registry.backends.several import joined
from experts_registry.types import Chunk, Prompt

__all__ = ["SideBySide", "one_of", "open_streams"]

_AHEAD = 64  # pieces that experts may be ahead of the client: their server waits with them


def one_of(answers: Sequence[Answer]) -> Answer:
    """Return answers as one with all their choices; the first one's expert signs it."""
    first = answers[0]
    steps = tuple(step for answer in reversed(answers) for step in answer.steps)
    generation = joined([answer.generation for answer in answers])
    return replace(first, steps=steps, generation=generation) if len(answers) > 1 else first


class SideBySide:
    """Streams that are read at once; choices are numbered through.

    Args:
        streams: one a prompt.
        n: choices of each.
    """

    def __init__(self, streams: Sequence[ChunkStream], n: int) -> None:
        self._streams, self._n = streams, n
        self._room = asyncio.Semaphore(_AHEAD)
        self._chunks = self._merged()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def aclose(self) -> None:
        """Stop the experts."""
        await self._chunks.aclose()

    @property
    def progress(self) -> Progress:
        """Who gives the first of them."""
        return self._streams[0].progress

    @property
    def answer(self) -> Answer:
        """All of them, once they are complete."""
        return one_of(self.answers)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """One a prompt."""
        return tuple(stream.answer for stream in self._streams)

    async def _merged(self) -> AsyncGenerator[Chunk]:
        """Pass on what comes; headers tell of the first stream, so it begins."""
        firsts = [await anext(aiter(stream)) for stream in self._streams[:1]]
        queue: asyncio.Queue[Chunk | asyncio.Task[None]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._read(i, stream, queue))
            for i, stream in enumerate(self._streams)
        ]
        for task in tasks:
            task.add_done_callback(queue.put_nowait)
        try:
            for chunk in firsts:
                if chunk.generation is None:
                    yield chunk
            left = len(tasks)
            while left:
                found = await queue.get()
                if isinstance(found, Chunk):
                    yield found
                    self._room.release()
                else:
                    found.result()
                    left -= 1
            yield Chunk("", self.answer.generation)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in self._streams:  # a task that had not begun yet closes nothing
                await stream.aclose()

    async def _read(
        self, place: int, stream: ChunkStream, queue: "asyncio.Queue[Chunk | asyncio.Task[None]]"
    ) -> None:
        async with aclosing(stream):
            async for chunk in stream:
                if chunk.generation is None:
                    await self._room.acquire()
                    queue.put_nowait(replace(chunk, index=place * self._n + chunk.index))


async def open_streams(
    asked: Asked, prompts: Sequence[Prompt], model: str, write: Callable[[Progress], Events]
) -> EventStream:
    """Wait for the first chunk of several answers; before it any failure is a plain error.

    Raises:
        AccessError: the caller's key does not allow it.
    """
    wish = wish_of(asked.body, asked.visit.key, asked.composer.registry)
    await asked.visit.reserve(asked.composer, prompts, model, wish)
    trails = [asked.visit.trail() for _ in prompts]
    streams = [
        asked.composer.achunks(
            prompt, model=model, trail=trail, retrieval=wish.mode, stores=wish.stores
        )
        for prompt, trail in zip(prompts, trails, strict=True)
    ]
    return await begin(asked, SideBySide(streams, prompts[0].sampling.n), trails[0], write)
