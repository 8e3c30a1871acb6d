"""How a call reaches an expert: the `Dispatcher` protocol, and the one for this process."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

from composer.opening import open_llm
from composer.status import Tier
from experts_registry.errors import (
    ComposerError,
    ExpertReplyError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
    unknown_name,
)
from experts_registry.schema import ExpertSpec
from experts_registry.types import LLM, Chunk, Generation, Prompt

__all__ = [
    "Dispatcher",
    "LocalDispatcher",
    "Slots",
    "deadline",
    "timed",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Dispatcher(Protocol):
    """Carries calls to experts, wherever they run."""

    async def generate(self, expert: str, prompt: Prompt) -> Generation:
        """Answer a prompt with one expert.

        Raises:
            ExpertError: the call failed; the subclass says how.
        """
        ...

    def stream(self, expert: str, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer piece by piece; closing the iterator stops the expert."""
        ...

    async def load(self, expert: str) -> None:
        """Make an expert ready before its first call."""
        ...

    async def detokenize(self, expert: str, tokens: Sequence[int]) -> str:
        """Return the text that tokens of an expert stand for.

        Raises:
            OffersError: it has no tokenizer here.
        """
        ...

    def tier(self, expert: str) -> Tier:
        """Say where an expert's weights are now."""
        ...

    async def aclose(self) -> None:
        """Stop every expert and free what it holds."""
        ...


class Slots:
    """At most ``size`` holders at once, first come first served, over any number of event loops.

    ``asyncio.Semaphore`` belongs to one loop, and an expert is called from several.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._waiting.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            # Our turn may have come while we were being cancelled: hand it on.
            if not turn.cancel():
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        with self._lock:
            while self._waiting:
                if (turn := self._waiting.popleft()).set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._free += 1


class deadline:  # noqa: N801 - reads as a verb; a class, as three a request must cost little
    """Turn the passing of ``seconds``, or what is left of them, into an `ExpertTimeoutError`."""

    def __init__(
        self, who: str, seconds: float | None, *, left: float | None = None, of: str = "answer"
    ) -> None:
        self._who, self._seconds, self._of = who, seconds, of
        self._scope = (
            None if seconds is None else asyncio.timeout(seconds if left is None else left)
        )

    async def __aenter__(self) -> None:
        if self._scope is not None:
            await self._scope.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scope is None:
            return
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise _too_late(self._who, self._seconds, self._of) from None


async def timed(
    chunks: AsyncIterator[T], who: str, seconds: float | None, *, left: float | None = None
) -> AsyncGenerator[T]:
    """Pass items on until ``seconds``, or what is left of them, have passed in total.

    One timer for all items: a scope around a ``yield`` would belong to whichever task asked for
    the first one, and a scope an item would be half of its cost.
    """
    if seconds is None:
        async for item in chunks:
            yield item
        return
    alarm = _Alarm(seconds if left is None else left)
    try:
        while True:
            try:
                with alarm.watching():
                    item = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not alarm.has_rung:
                    raise
                raise _too_late(who, seconds) from None
            yield item
    finally:
        alarm.stop()


class _Alarm:
    """Wakes whichever task waits when the time is up, and those that come later at once."""

    def __init__(self, seconds: float) -> None:
        self.has_rung = False
        self._task: asyncio.Task[Any] | None = None
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._ring)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise `TimeoutError` in here when the time is up."""
        if self.has_rung:
            raise TimeoutError
        task = self._task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
        except asyncio.CancelledError:
            # Ours, unless somebody else cancels at the same time.
            if self.has_rung and task is not None and task.uncancel() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def stop(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        self.has_rung = True
        if self._task is not None:
            self._task.cancel()


def _too_late(who: str, seconds: float | None, of: str = "answer") -> ExpertTimeoutError:
    return ExpertTimeoutError(
        f"{who}: no {of} within {seconds:.4g} s; raise limits.seconds, ask for fewer tokens, "
        "or use a faster expert"
    )


@dataclass
class _Kept:
    """An open expert, and how many dispatchers hold it."""

    llm: LLM
    holders: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        with self._lock:
            self.holders += 1

    def is_free_without_me(self) -> bool:
        with self._lock:
            self.holders -= 1
            return not self.holders


class LocalDispatcher:
    """Runs experts in this process: each is built once, at its first call, and then kept.

    Args:
        experts: by name.
        before: the dispatcher of an older edition; what it has open and did not change is shared,
            with its limit, and closed by whichever of the two closes last.
    """

    def __init__(
        self, experts: Mapping[str, ExpertSpec], *, before: "LocalDispatcher | None" = None
    ) -> None:
        self._specs = dict(experts)
        self._open = before._lend(self._specs) if before is not None else {}
        self._slots = {
            name: Slots(spec.limits.concurrency)
            for name, spec in self._specs.items()
            if spec.limits.concurrency
        }
        if before is not None:
            self._slots |= {n: slots for n, slots in before._slots.items() if n in self._open}
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {name: threading.Lock() for name in self._specs}
        self._is_closed = False

    async def generate(self, expert: str, prompt: Prompt) -> Generation:
        """Answer a prompt with one expert."""
        spec = self._spec(expert)
        async with deadline(_who(expert), spec.limits.seconds), self._turn(expert):
            llm = await self._llm(expert)
            with _failing_as(expert):
                answer = await llm.generate(prompt.limited(max_tokens=spec.limits.max_tokens))
                return _typed(answer, Generation)

    async def stream(self, expert: str, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer piece by piece; closing the iterator stops the expert."""
        spec = self._spec(expert)
        async with aclosing(self._stream(expert, prompt)) as chunks:
            async for chunk in timed(chunks, _who(expert), spec.limits.seconds):
                yield chunk

    async def _stream(self, expert: str, prompt: Prompt) -> AsyncGenerator[Chunk]:
        async with self._turn(expert):
            llm = await self._llm(expert)
            prompt = prompt.limited(max_tokens=self._spec(expert).limits.max_tokens)
            with _failing_as(expert):
                chunks = llm.stream(prompt)
                try:
                    async for chunk in chunks:
                        yield _typed(chunk, Chunk)
                finally:
                    # The protocol asks for an iterator; a generator has work to stop.
                    if (close := getattr(chunks, "aclose", None)) is not None:
                        await close()

    async def load(self, expert: str) -> None:
        """Build an expert, and load its weights where its backend knows how."""
        load = getattr(await self._llm(expert), "load", None)
        if load is not None:
            await asyncio.to_thread(load)

    async def detokenize(self, expert: str, tokens: Sequence[int]) -> str:
        """Return the text that tokens of an expert stand for."""
        read = getattr(await self._llm(expert), "detokenize", None)
        if read is None:
            raise OffersError(f"expert {expert!r}: has no tokenizer here; send the text")
        text: str = await asyncio.to_thread(read, tokens)
        return text

    def tier(self, expert: str) -> Tier:
        """Say where an expert's weights are now."""
        kept = self._open.get(expert)
        tier: Tier = "disk" if kept is None else getattr(kept.llm, "tier", "host")
        return tier

    async def aclose(self) -> None:
        """Close every expert; calls after that are refused."""
        with self._lock:
            self._is_closed = True
            held, self._open = list(self._open.values()), {}
        mine = [kept.llm for kept in held if kept.is_free_without_me()]
        # Together: one that fails to close must not keep the others open.
        ends = await asyncio.gather(*map(_close, mine), return_exceptions=True)
        for error in filter(None, ends):
            logger.warning("an expert did not close: %s", error)

    def _spec(self, expert: str) -> ExpertSpec:
        try:
            return self._specs[expert]
        except KeyError:
            raise unknown_name("expert", expert, self._specs) from None

    def _turn(self, expert: str) -> Any:
        return self._slots.get(expert) or _NoLimit()

    def _lend(self, specs: Mapping[str, ExpertSpec]) -> dict[str, _Kept]:
        with self._lock:
            same = {n: kept for n, kept in self._open.items() if specs.get(n) == self._specs[n]}
            for kept in same.values():
                kept.take()
            return same

    async def _llm(self, expert: str) -> LLM:
        if (kept := self._open.get(expert)) is not None:
            return kept.llm
        # In a thread: importing a backend and reading weights must not stop the event loop.
        return await asyncio.to_thread(self._build, expert)

    def _build(self, expert: str) -> LLM:
        spec = self._spec(expert)
        with self._opening[expert]:
            if (kept := self._open.get(expert)) is not None:
                return kept.llm
            llm = open_llm(spec)
            with self._lock:
                if self._is_closed:
                    raise ExpertUnavailableError(
                        f"expert {expert!r}: the dispatcher is closed; make a new one"
                    )
                self._open[expert] = _Kept(llm)
        return llm


async def _close(llm: LLM) -> None:
    await llm.aclose()


@contextmanager
def _failing_as(expert: str) -> Iterator[None]:
    """Turn whatever a backend raises by mistake into an error that names the expert.

    A backend may be anybody's plug-in, and one broken expert must not end a collection.
    """
    try:
        yield
    except ComposerError:
        raise
    except Exception as error:
        logger.debug("expert %s: its backend failed", expert, exc_info=True)
        raise ExpertReplyError(
            f"{_who(expert)}: its backend failed: {type(error).__name__}: {error}; "
            "mend the backend, or disable the expert"
        ) from error


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"it gave a {type(value).__name__}, not a {kind.__name__}")
    return value


def _who(expert: str) -> str:
    return f"expert {expert!r}"


class _NoLimit:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
