"""Answer a request whole or as a stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from starlette.types import Receive, Scope, Send

from composer.http.asked import Asked
from composer.http.bodies import raw_headers
from composer.http.errors import ApiError
from composer.http.headers import told_so_far
from composer.http.passages import wish_of
from composer.http.requests import Ask
from composer.http.shapes import DONE
from composer.http.visit import Visit
from composer.streaming import Progress
from composer.trace import Answer, Trail
from experts_registry.types import Chunk, Prompt

__all__ = ["Chunks", "EventStream", "Events", "answers_of", "begin", "open_stream"]


class Events(Protocol):
    """Writes a streamed answer's events."""

    def first(self) -> bytes:
        """Open the stream."""
        ...

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        ...

    def last(self, answer: Answer) -> Iterable[bytes]:
        """Say how it ended."""
        ...


class Chunks(Protocol):
    """An answer as it comes."""

    @property
    def progress(self) -> Progress:
        """Who answers."""
        ...

    @property
    def answer(self) -> Answer:
        """The whole answer, at its end."""
        ...

    @property
    def answers(self) -> Sequence[Answer]:
        """The answers that it is made of, at their ends."""
        ...

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def aclose(self) -> None:
        """Stop it."""
        ...


@runtime_checkable
class TypedEvents(Events, Protocol):
    """Events that say themselves how the stream ends, well or not: there is no [DONE] then."""

    def failed(self, error: ApiError) -> bytes:
        """Say that there will be no more, and why."""
        ...


async def answers_of(asked: Asked, prompts: Sequence[Prompt], model: str) -> list[Answer]:
    """Answer prompts side by side; one that fails cancels the others.

    Raises:
        AccessError: the caller's key does not allow it.
    """
    wish = wish_of(asked.body, asked.visit.key, asked.composer.registry)
    await asked.visit.reserve(asked.composer, prompts, model, wish)

    async def answer(prompt: Prompt) -> Answer:
        found = await asked.composer.aquery(
            prompt,
            model=model,
            trail=asked.visit.trail(),
            retrieval=wish.mode,
            stores=wish.stores,
        )
        asked.visit.answers.append(found)
        return found

    if len(prompts) == 1:
        return [await answer(prompts[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(prompt)) for prompt in prompts]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


@dataclass
class EventStream:
    """An answer as server-sent events; what fails on the way is left to whoever runs it.

    Args:
        events: writes them.
        chunks: what is still to come: a `ChunkStream`, or several read as one.
        first: the chunk that was waited for, so that a failure before it is a plain error.
        visit: is told the whole answer.
    """

    events: Events
    chunks: Chunks
    first: Chunk
    visit: Visit
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        done = DONE
        if isinstance(self.events, TypedEvents):
            done, scope["failed_event"] = b"", self.events.failed
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **self.headers,
        }
        async with aclosing(self.chunks):
            raw = raw_headers(headers)
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            await _write(send, self.events.first() + self._piece(self.first))
            async for chunk in self.chunks:
                if piece := self._piece(chunk):
                    await _write(send, piece)
        self.visit.answers.extend(self.chunks.answers)
        ending = b"".join(self.events.last(self.chunks.answer)) + done
        await send({"type": "http.response.body", "body": ending, "more_body": False})

    def _piece(self, chunk: Chunk) -> bytes:
        return b"" if chunk.generation is not None else self.events.piece(chunk)


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def open_stream(asked: Asked, ask: Ask, write: Callable[[Progress], Events]) -> EventStream:
    """Wait for the first chunk of an answer; before it any failure is a plain error.

    Raises:
        AccessError: the caller's key does not allow it.
    """
    wish = wish_of(asked.body, asked.visit.key, asked.composer.registry)
    await asked.visit.reserve(asked.composer, [ask.prompt], ask.model, wish)
    trail = asked.visit.trail()
    chunks = asked.composer.achunks(
        ask.prompt, model=ask.model, trail=trail, retrieval=wish.mode, stores=wish.stores
    )
    return await begin(asked, chunks, trail, write)


async def begin(
    asked: Asked, chunks: Chunks, trail: Trail, write: Callable[[Progress], Events]
) -> EventStream:
    """Wait for the first chunk, and say in headers who gives it."""
    first = await anext(aiter(chunks))
    trail.first = time.perf_counter()
    progress = chunks.progress
    headers = told_so_far(asked.composer, progress, asked.began)
    return EventStream(write(progress), chunks, first, asked.visit, headers)
