"""How a call reaches an expert: the `Dispatcher` protocol, and the one for this process."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from composer.deadlines import deadline, timed
from composer.opening import SETUP_ERRORS, blame_setup, blaming_setup, open_llm
from composer.shared import Shared
from composer.slots import Slots
from composer.status import Tier
from experts_registry.errors import (
    ComposerError,
    ExpertReplyError,
    ExpertUnavailableError,
    OffersError,
    unknown_name,
)
from experts_registry.schema import ExpertSpec
from experts_registry.types import LLM, Chunk, Generation, Prompt

__all__ = ["Dispatcher", "LocalDispatcher"]

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


@dataclass
class _Kept(Shared):
    """An open expert."""

    llm: LLM


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
            with _FailingAs(expert):
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
            with _FailingAs(expert):
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
            raise OffersError(f"expert {expert!r}: has no tokenizer here; send the text", "prompt")
        with blaming_setup(expert, SETUP_ERRORS):
            text: str = await asyncio.to_thread(read, tokens)
        return text

    def tier(self, expert: str) -> Tier:
        """Say where an expert's weights are now."""
        if (kept := self._open.get(expert)) is None:
            return _tier_unopened(self._specs[expert])
        tier: Tier = getattr(kept.llm, "tier", "host")
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
        return self._slots.get(expert, _NO_LIMIT)

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
            with blaming_setup(expert):
                llm = open_llm(spec)
            with self._lock:
                if self._is_closed:
                    raise ExpertUnavailableError(
                        f"expert {expert!r}: the dispatcher is closed; make a new one"
                    )
                self._open[expert] = _Kept(llm)
        return llm


def _tier_unopened(spec: ExpertSpec) -> Tier:
    """Tell from the file alone: to import a backend may take seconds."""
    return "remote" if spec.backend == "openai" or "base_url" in spec.options else "disk"


async def _close(llm: LLM) -> None:
    await llm.aclose()


class _FailingAs:
    """Turns whatever a backend raises by mistake into an error that names the expert.

    A backend may be anybody's plug-in, and one broken expert must not end a collection.
    """

    def __init__(self, expert: str) -> None:
        self._expert = expert

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, SETUP_ERRORS):
            blame_setup(self._expert, error)
        if isinstance(error, Exception) and not isinstance(error, ComposerError):
            logger.debug("expert %s: its backend failed", self._expert, exc_info=True)
            raise ExpertReplyError(
                f"{_who(self._expert)}: its backend failed: {type(error).__name__}: {error}; "
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


_NO_LIMIT = _NoLimit()
