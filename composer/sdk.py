"""The Python door: `Composer` asks experts and returns answers that say how they came about."""

import asyncio
import logging
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
)
from collections.abc import Sequence as Seq
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from composer.dispatch import Dispatcher, LocalDispatcher, deadline, timed
from composer.routing import Routing
from composer.strategies import FAILOVER, Strategy, order_of_call
from experts_registry.errors import ComposerError, ExpertUnavailableError
from experts_registry.plugins import load_plugin
from experts_registry.registry import Registry
from experts_registry.types import Generation, Message, Passage, Prompt, Usage
from routers.base import Decision

__all__ = ["Answer", "Composer", "Step", "Stream"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Text = str | Seq[Message | Mapping[str, Any]] | Prompt


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call to one expert: what it took, and how it failed if it did."""

    expert: str
    seconds: float
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and why it is this one.

    Args:
        text: the answer.
        decision: whom the router chose, from which numbers.
        steps: every call that was made, failed ones included, in order.
        passages: what was retrieved for it.
        generation: the answering expert's own account: finish reason, usage, tool calls.
        registry: digest of the registry generation that answered.
    """

    text: str
    decision: Decision
    steps: tuple[Step, ...]
    generation: Generation
    passages: tuple[Passage, ...] = ()
    registry: str = ""

    @property
    def expert(self) -> str:
        """The expert whose words these are."""
        return self.steps[-1].expert

    @property
    def cost(self) -> float:
        """USD over all steps."""
        return sum(step.cost for step in self.steps)

    @property
    def seconds(self) -> float:
        """Seconds spent waiting for experts."""
        return sum(step.seconds for step in self.steps)


@dataclass
class Stream:
    """Pieces of an answer as they come; ``answer`` is there once they have all been read."""

    _pieces: AsyncGenerator[str]
    _wait: Callable[[Awaitable[Any]], Any]
    _answer: list[Answer]

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._wait(anext(self._pieces, None))) is not None:
                yield piece
        finally:
            self._wait(self._pieces.aclose())

    async def aclose(self) -> None:
        """Stop the expert."""
        await self._pieces.aclose()

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            ComposerError: the stream has not been read to its end.
        """
        if not self._answer:
            raise ComposerError("stream: is not finished; read it to its end first")
        return self._answer[0]


@dataclass
class _Ledger:
    """The steps of one request, priced."""

    registry: Registry
    steps: list[Step] = field(default_factory=list)

    def failed(self, expert: str, began: float, error: BaseException) -> None:
        self.steps.append(
            Step(
                expert=expert,
                seconds=time.perf_counter() - began,
                error=f"{type(error).__name__}: {error}",
            )
        )

    def answered(self, expert: str, began: float, usage: Usage) -> None:
        price = self.registry.expert(expert).price
        self.steps.append(
            Step(
                expert=expert,
                seconds=time.perf_counter() - began,
                usage=usage,
                cost=price.cost(usage.prompt_tokens, usage.completion_tokens),
            )
        )


@dataclass(frozen=True)
class _Plan:
    """A decided request: what to send, to whom, how, and for how long."""

    prompt: Prompt
    decision: Decision
    who: str
    strategy: str = "single"
    seconds: float | None = None


class Composer:
    """Ask a registry of experts as if they were one.

    Every verb has an async twin (``aquery``, ``astream``, ``aroute``, ``aexplain``, ``aclose``);
    the plain one runs it on a loop of its own, so it may be called from any thread.

    Args:
        registry: the experts and compositions.
        dispatcher: how calls reach experts; by default in this process.

    Example:
        >>> with Composer.load("experts.yaml") as composer:  # doctest: +SKIP
        ...     print(composer.query("What is 17 * 23?").text)
    """

    def __init__(self, registry: Registry, *, dispatcher: Dispatcher | None = None) -> None:
        self.registry = registry
        self.dispatcher: Dispatcher = dispatcher or LocalDispatcher(registry.llms)
        self._routing = Routing(registry)
        self._loop = _BackgroundLoop()

    @classmethod
    def load(cls, path: str | Path, *, workers: bool = False) -> Self:
        """Read an expert file; ``workers`` runs its experts on Ray instead of in this process."""
        registry = Registry.load(path)
        if not workers:
            return cls(registry)
        from composer.ray_dispatch import RayDispatcher

        return cls(registry, dispatcher=RayDispatcher(registry.llms))

    # -- choose ---------------------------------------------------------------------------------

    def route(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Decision:
        """Say whom ``query`` would ask, without asking.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            PromptError: the query is empty, or no expert may be asked.
        """
        return self._routing.decide(Prompt.of(text_or_messages, **sampling), model)

    async def aroute(
        self, text_or_messages: Text, *, model: str = "auto", **sampling: Any
    ) -> Decision:
        """Async twin of `route`: the encoder runs in a thread."""
        return await asyncio.to_thread(self.route, text_or_messages, model=model, **sampling)

    def explain(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> str:
        """Say in words whom ``query`` would ask and why, from the numbers that decide."""
        from composer.explanation import explain

        return explain(self.route(text_or_messages, model=model, **sampling))

    async def aexplain(
        self, text_or_messages: Text, *, model: str = "auto", **sampling: Any
    ) -> str:
        """Async twin of `explain`."""
        return await asyncio.to_thread(self.explain, text_or_messages, model=model, **sampling)

    # -- ask ------------------------------------------------------------------------------------

    async def aquery(
        self, text_or_messages: Text, *, model: str = "auto", **sampling: Any
    ) -> Answer:
        """Answer a query.

        Args:
            text_or_messages: a text, messages in OpenAI's shape, or a `Prompt`.
            model: a composition, or one expert by name.
            **sampling: fields of `Sampling`, for example ``max_tokens=64``.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            PromptError: the query is empty or too long, or no expert may be asked.
            ExpertError: the experts that were asked failed; the subclass says how.
        """
        plan = await self._plan(Prompt.of(text_or_messages, **sampling), model)
        ledger = _Ledger(self.registry)

        async def call(expert: str, prompt: Prompt) -> Generation:
            began = time.perf_counter()
            try:
                generation = await self.dispatcher.generate(expert, prompt)
            except BaseException as error:
                ledger.failed(expert, began, error)
                raise
            ledger.answered(expert, began, generation.usage)
            return generation

        strategy: Strategy = load_plugin("strategies", plan.strategy)()
        async with deadline(plan.who, plan.seconds):
            generation = await strategy(plan.prompt, plan.decision, call)
        return self._answer(generation, plan.decision, ledger)

    def query(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Answer:
        """Answer a query; see `aquery`."""
        return self._loop.run(self.aquery(text_or_messages, model=model, **sampling))

    def astream(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``async for``."""
        answer: list[Answer] = []
        pieces = self._pieces(Prompt.of(text_or_messages, **sampling), model, answer)
        return Stream(pieces, self._loop.run, answer)

    def stream(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``for``."""
        return self.astream(text_or_messages, model=model, **sampling)

    async def _plan(self, prompt: Prompt, model: str) -> "_Plan":
        # In a thread: the encoder computes for milliseconds, the first call loads it for seconds.
        decision = await asyncio.to_thread(self._routing.decide, prompt, model)
        composition = self._routing.composition(model)
        if composition is None:
            return _Plan(prompt, decision, f"expert {model!r}")
        limits = composition.limits
        return _Plan(
            prompt.limited(max_tokens=limits.max_tokens),
            decision,
            f"composition {model!r}",
            composition.strategy,
            limits.seconds,
        )

    async def _pieces(
        self, prompt: Prompt, model: str, answer: list[Answer]
    ) -> AsyncGenerator[str]:
        plan = await self._plan(prompt, model)
        async with aclosing(self._failover(plan, answer)) as pieces:
            async for piece in timed(pieces, plan.who, plan.seconds):
                yield piece

    async def _failover(self, plan: "_Plan", answer: list[Answer]) -> AsyncGenerator[str]:
        """Stream from the first expert that begins; what was passed on cannot be taken back."""
        ledger = _Ledger(self.registry)
        experts = order_of_call(plan.decision, attempts=2)
        for expert in experts:
            began, is_begun = time.perf_counter(), False
            try:
                source: Any = self.dispatcher.stream(expert, plan.prompt)
                async with aclosing(source) as chunks:
                    async for chunk in chunks:
                        if chunk.generation is not None:
                            ledger.answered(expert, began, chunk.generation.usage)
                            answer.append(self._answer(chunk.generation, plan.decision, ledger))
                        elif chunk.text:
                            is_begun = True
                            yield chunk.text
            except FAILOVER as error:
                ledger.failed(expert, began, error)
                if is_begun or expert == experts[-1]:
                    raise
                logger.warning("expert %s failed, asking the next best: %s", expert, error)
            else:
                if answer:
                    return
                raise ExpertUnavailableError(
                    f"expert {expert!r}: the stream ended early; ask again"
                )

    def _answer(self, generation: Generation, decision: Decision, ledger: _Ledger) -> Answer:
        return Answer(
            text=generation.text,
            decision=decision,
            steps=tuple(ledger.steps),
            generation=generation,
            registry=self.registry.digest,
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine on the loop of the plain verbs, such as ``dispatcher.load``."""
        return self._loop.run(coroutine)

    # -- end ------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Stop the experts."""
        await self.dispatcher.aclose()
        self._routing.close()
        self._loop.stop()

    def close(self) -> None:
        """Stop the experts; see `aclose`."""
        self._loop.run(self.dispatcher.aclose())
        self._routing.close()
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _BackgroundLoop:
    """An event loop in a daemon thread, started at first use.

    One loop for life: HTTP pools are bound to the loop they start on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Awaitable[T]) -> T:
        """Wait for a coroutine that runs on the loop; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._running())
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread; a later `run` starts a new one."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_run_forever, args=(self._loop,), name="composer", daemon=True
                ).start()
            return self._loop


async def _awaited(awaitable: Awaitable[T]) -> T:
    """Accept what is awaitable but no coroutine, such as ``anext(...)``."""
    return await awaitable


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
