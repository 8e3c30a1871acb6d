"""Answer a request whole or as a stream, with headers that say who answered and what it took."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Receive, Scope, Send

from composer.http.access import Visit
from composer.http.asked import Asked
from composer.http.requests import Ask
from composer.http.shapes import DONE
from composer.sdk import Composer
from composer.streaming import Progress
from composer.trace import Answer, Step
from experts_registry.types import Chunk, Prompt
from routers.base import Decision

__all__ = ["Chunks", "EventStream", "Events", "answers_of", "begin", "open_stream", "told"]

Headers = dict[str, str]


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

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def aclose(self) -> None:
        """Stop it."""
        ...


async def answers_of(asked: Asked, prompts: Sequence[Prompt], model: str) -> list[Answer]:
    """Answer prompts side by side; one that fails cancels the others.

    Raises:
        AccessError: the caller's key does not allow it.
    """
    await asked.visit.reserve(asked.composer, prompts, model)

    async def answer(prompt: Prompt) -> Answer:
        found = await asked.composer.aquery(prompt, model=model)
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


def told(composer: Composer, answers: Sequence[Answer], began: float) -> Headers:
    """Return the headers of whole answers; the first one's decision stands for all."""
    first = answers[0]
    waited = max(answer.seconds for answer in answers)
    steps = [step for answer in answers for step in answer.steps]
    return {
        **_decided(composer, first.model, first.decision, first.expert),
        **_counted(steps, time.perf_counter() - began - waited),
        "x-composer-cost-usd": f"{sum(answer.cost for answer in answers):.10g}",
    }


def _told_so_far(composer: Composer, progress: Progress, began: float) -> Headers:
    """Return the headers of an answer that begins: what it will cost is not known yet."""
    failed = progress.ledger.steps
    overhead = progress.began - began - sum(step.seconds for step in failed)
    current = Step(expert=progress.expert, seconds=0.0)
    return {
        **_decided(composer, progress.plan.model, progress.plan.decision, progress.expert),
        **_counted([*(s for s in failed if s.error), current], overhead),
    }


def _decided(composer: Composer, model: str, decision: Decision, expert: str) -> Headers:
    headers = {
        "x-composer-model": model,
        "x-composer-expert": expert,
        "x-composer-generation": str(composer.registry.generation),
    }
    if decision.router:
        headers["x-composer-router"] = decision.router
    scores = dict(zip(decision.experts, decision.scores, strict=False))
    if expert in scores:
        headers["x-composer-score"] = f"{scores[expert]:.4g}"
    return headers


def _counted(steps: Sequence[Step], overhead: float) -> Headers:
    return {
        "x-composer-attempts": str(len(steps)),
        "x-composer-fallbacks": str(sum(step.error is not None for step in steps)),
        "x-composer-overhead-ms": f"{max(0.0, overhead) * 1000:.2f}",
    }


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
    headers: Headers = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **self.headers,
        }
        raw = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        async with aclosing(self.chunks):
            await _write(send, self.events.first() + self._piece(self.first))
            async for chunk in self.chunks:
                if piece := self._piece(chunk):
                    await _write(send, piece)
        self.visit.answers.append(self.chunks.answer)
        ending = b"".join(self.events.last(self.chunks.answer)) + DONE
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
    await asked.visit.reserve(asked.composer, [ask.prompt], ask.model)
    return await begin(asked, asked.composer.achunks(ask.prompt, model=ask.model), write)


async def begin(asked: Asked, chunks: Chunks, write: Callable[[Progress], Events]) -> EventStream:
    """Wait for the first chunk, and say in headers who gives it."""
    first = await anext(aiter(chunks))
    progress = chunks.progress
    headers = _told_so_far(asked.composer, progress, asked.began)
    return EventStream(write(progress), chunks, first, asked.visit, headers)
