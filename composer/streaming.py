"""Answers as they come: whole pieces for a server, plain texts for a program."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from composer.calling import Calling, Pieces
from composer.deadlines import timed
from composer.handouts import Handout
from composer.plan import Plan
from composer.strategies import Single
from composer.trace import Answer, Ledger
from experts_registry.errors import ComposerError, ExpertUnavailableError, PluginError
from experts_registry.passages import Passage
from experts_registry.plugins import load_plugin
from experts_registry.types import Chunk, Generation

__all__ = ["ChunkStream", "Progress", "Stream", "chunks_of"]


@dataclass
class Progress:
    """What is known so far of an answer that is still coming.

    Args:
        plan: what was decided.
        ledger: the calls that have ended, and the answer's id.
        expert: who is being asked, or answers.
        handout: what it was sent.
        began: when this call began, in `time.perf_counter` seconds.
        answer: the whole answer, once its last piece has come.
    """

    plan: Plan
    ledger: Ledger
    expert: str = ""
    handout: Handout | None = None
    began: float = 0.0
    answer: Answer | None = None

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Those that the expert was given."""
        return () if self.handout is None else self.handout.passages


@dataclass
class ChunkStream:
    """Chunks of an answer as they come, and who gives them.

    An expert that fails before its first chunk is replaced unseen, so ``expert`` and ``decision``
    are there with the first chunk and do not change after it.
    """

    _chunks: AsyncGenerator[Chunk]
    _progress: list[Progress] = field(default_factory=list)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def aclose(self) -> None:
        """Stop the expert."""
        await self._chunks.aclose()

    @property
    def progress(self) -> Progress:
        """Who answers, why, and what failed before.

        Raises:
            ComposerError: no chunk has been read yet.
        """
        if not self._progress:
            raise ComposerError("stream: has not begun; read its first chunk first")
        return self._progress[0]

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            ComposerError: the stream has not been read to its end.
        """
        if not self._progress or self._progress[0].answer is None:
            raise ComposerError("stream: is not finished; read it to its end first")
        return self._progress[0].answer

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers that it is made of: this one."""
        return (self.answer,)


class Stream:
    """Pieces of an answer as they come; ``answer`` is there once they have all been read.

    Of several answers it gives the pieces of the first.
    """

    def __init__(self, chunks: ChunkStream, wait: Callable[[Awaitable[Any]], Any]) -> None:
        self._chunks, self._wait = chunks, wait
        self._pieces = _texts(chunks)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._wait(anext(self._pieces, None))) is not None:
                yield piece
        finally:
            with suppress(ExpertUnavailableError):  # closed meanwhile: nothing is left to stop
                self._wait(self._pieces.aclose())

    async def aclose(self) -> None:
        """Stop the expert."""
        await self._pieces.aclose()

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Those that the expert was given.

        Raises:
            ComposerError: no piece has been read yet.
        """
        return self._chunks.progress.passages

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            ComposerError: the stream has not been read to its end.
        """
        return self._chunks.answer


async def _texts(chunks: ChunkStream) -> AsyncGenerator[str]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.text and not chunk.index:
                yield chunk.text


async def chunks_of(
    progress: Progress, calling: Calling, remember: Callable[[Answer], Answer]
) -> AsyncGenerator[Chunk]:
    """Stream a decided request within its time.

    Raises:
        PluginError: its strategy gives no pieces.
    """
    plan = progress.plan
    if load_plugin("strategies", plan.strategy) is not Single:
        raise PluginError(
            f"{plan.who}: strategy {plan.strategy!r} gives no pieces; ask it without streaming"
        )
    async with aclosing(_failover(progress, calling, remember)) as chunks:
        async for chunk in timed(chunks, plan.who, plan.seconds, left=plan.left):
            yield chunk


async def _failover(
    progress: Progress, calling: Calling, remember: Callable[[Answer], Answer]
) -> AsyncGenerator[Chunk]:
    """Stream from the first expert that begins; what was passed on cannot be taken back."""
    expert = progress.plan.decision.primary
    while progress.answer is None:
        progress.expert, progress.began = expert, calling.begin(expert)
        progress.handout = handout = calling.handout(expert, progress.plan.prompt)
        pieces: Pieces | None = None
        try:
            with calling.call(expert, handout, progress.began) as pieces:
                async with aclosing(_pieces(progress, handout, calling)) as chunks:
                    async for chunk in chunks:
                        pieces.add()
                        if chunk.generation is not None:
                            chunk = _finished(progress, handout, chunk.generation, remember)
                            pieces.is_complete = True
                        yield chunk
                if progress.answer is None:
                    raise ExpertUnavailableError(
                        f"expert {expert!r}: the stream ended early; ask again"
                    )
        except ComposerError as error:
            if pieces is not None and pieces.has_begun:
                raise
            expert = await calling.next(expert, error)


async def _pieces(progress: Progress, handout: Handout, calling: Calling) -> AsyncGenerator[Chunk]:
    """Pass an expert's chunks on, the first of them within the time that it has."""
    expert, limits = progress.expert, calling.standings[progress.expert].spec.limits
    source: Any = calling.dispatcher.stream(expert, handout.prompt)
    async with aclosing(source) as chunks:
        async with calling.within(expert, most=limits.first_token_seconds, of="first token"):
            first = await anext(chunks, None)
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk


def _finished(
    progress: Progress,
    handout: Handout,
    generation: Generation,
    remember: Callable[[Answer], Answer],
) -> Chunk:
    """Note the whole answer, and return it as the last chunk."""
    plan, ledger = progress.plan, progress.ledger
    whole = ledger.answered(progress.expert, progress.began, handout, generation)
    progress.answer = remember(ledger.answer(whole, plan.decision))
    return Chunk("", whole)
