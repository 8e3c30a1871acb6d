"""The Python door: `Composer` asks experts and returns answers that say how they came about."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType
from typing import Any, Self, TypeVar

from composer.background import BackgroundLoop
from composer.dispatch import Dispatcher, LocalDispatcher, deadline, timed
from composer.exploring import Exploration
from composer.feedback import Feedback, FeedbackDesk
from composer.routing import Routing
from composer.strategies import FAILOVER, Single, Strategy, order_of_call
from composer.trace import Answer, Ledger
from experts_registry.errors import ComposerError, ExpertUnavailableError, PluginError
from experts_registry.plugins import load_plugin
from experts_registry.registry import Registry
from experts_registry.types import Generation, Message, Prompt
from routers.base import Decision

__all__ = ["Composer", "Stream"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Text = str | Seq[Message | Mapping[str, Any]] | Prompt


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
            with suppress(ExpertUnavailableError):  # closed meanwhile: nothing is left to stop
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


@dataclass(frozen=True)
class _Plan:
    """A decided request: what to send, to whom, how, and for how long."""

    prompt: Prompt
    decision: Decision
    model: str
    who: str
    strategy: str = "single"
    seconds: float | None = None


class Composer:
    """Ask a registry of experts as if they were one.

    Every verb has an async twin (``aquery``, ``astream``, ``aroute``, ``aexplain``,
    ``afeedback``, ``aclose``); the plain one may be called from any thread.

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
        self._feedback = FeedbackDesk(registry)
        self._exploration = Exploration(registry, lambda: self._feedback.store)
        self._loop = BackgroundLoop()

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
        ledger = Ledger(self.registry, plan.prompt.query, plan.model)

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
        return self._feedback.remember(ledger.answer(generation, plan.decision))

    def query(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Answer:
        """Answer a query; see `aquery`."""
        return self.run(self.aquery(text_or_messages, model=model, **sampling))

    def astream(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``async for``."""
        answer: list[Answer] = []
        pieces = self._pieces(Prompt.of(text_or_messages, **sampling), model, answer)
        return Stream(pieces, self._loop.run, answer)

    def stream(self, text_or_messages: Text, *, model: str = "auto", **sampling: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``for``."""
        return self.astream(text_or_messages, model=model, **sampling)

    # -- learn ----------------------------------------------------------------------------------

    def feedback(self, answer: Answer | str, quality: float, *, grader: str = "user") -> Feedback:
        """Say how good an answer was; routers may learn from it, see ``expert-composer retrain``.

        Args:
            answer: an answer, or the id of one of the last 1,000 of this composer; feedback on
                the same answer replaces the older one.
            quality: from 0, bad, to 1, perfect.
            grader: who says so.

        Raises:
            OptionError: the quality is not in [0, 1].
            DataError: no such answer is known, or the feedback cannot be stored.
        """
        return self._feedback.take(answer, quality, grader)

    async def afeedback(
        self, answer: Answer | str, quality: float, *, grader: str = "user"
    ) -> Feedback:
        """Async twin of `feedback`: the database is written to in a thread."""
        return await asyncio.to_thread(self.feedback, answer, quality, grader=grader)

    # -- inside ---------------------------------------------------------------------------------

    async def _plan(self, prompt: Prompt, model: str) -> "_Plan":
        # In a thread: the encoder computes for milliseconds, the first call loads it for seconds.
        decision = await asyncio.to_thread(self._decide, prompt, model)
        composition = self._routing.composition(model)
        if composition is None:
            return _Plan(prompt, decision, model, f"expert {model!r}")
        limits = composition.limits
        return _Plan(
            prompt.limited(max_tokens=limits.max_tokens),
            decision,
            model,
            f"composition {model!r}",
            composition.strategy,
            limits.seconds,
        )

    def _decide(self, prompt: Prompt, model: str) -> Decision:
        """Decide whom to ask, exploring where the composition wants it; `route` never explores."""
        decision = self._routing.decide(prompt, model)
        composition = self._routing.composition(model)
        return self._exploration.decide(decision, composition, prompt)

    async def _pieces(
        self, prompt: Prompt, model: str, answer: list[Answer]
    ) -> AsyncGenerator[str]:
        plan = await self._plan(prompt, model)
        if load_plugin("strategies", plan.strategy) is not Single:
            raise PluginError(
                f"{plan.who}: strategy {plan.strategy!r} gives no pieces; ask it without streaming"
            )
        async with aclosing(self._failover(plan, answer)) as pieces:
            async for piece in timed(pieces, plan.who, plan.seconds):
                yield piece

    async def _failover(self, plan: "_Plan", answer: list[Answer]) -> AsyncGenerator[str]:
        """Stream from the first expert that begins; what was passed on cannot be taken back."""
        ledger = Ledger(self.registry, plan.prompt.query, plan.model)
        experts = order_of_call(plan.decision, Single().attempts)
        for expert in experts:
            began, is_begun = time.perf_counter(), False
            try:
                source: Any = self.dispatcher.stream(expert, plan.prompt)
                async with aclosing(source) as chunks:
                    async for chunk in chunks:
                        if chunk.generation is not None:
                            ledger.answered(expert, began, chunk.generation.usage)
                            whole = ledger.answer(chunk.generation, plan.decision)
                            answer.append(self._feedback.remember(whole))
                        elif chunk.text:
                            is_begun = True
                            yield chunk.text
                if not answer:
                    raise ExpertUnavailableError(
                        f"expert {expert!r}: the stream ended early; ask again"
                    )
                return
            except FAILOVER as error:
                ledger.failed(expert, began, error)
                if is_begun or expert == experts[-1]:
                    raise
                logger.warning("expert %s failed, asking the next best: %s", expert, error)

    def run(self, coroutine: Awaitable[T]) -> T:
        """Wait for a coroutine on the loop of the plain verbs, such as ``dispatcher.load``."""
        try:
            return self._loop.run(coroutine)
        finally:
            # Where the loop refused it, nobody will await it any more.
            if isinstance(coroutine, CoroutineType):
                coroutine.close()

    # -- end ------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Stop the experts."""
        try:
            await self.dispatcher.aclose()
        finally:
            self._routing.close()
            self._feedback.close()
            await asyncio.to_thread(self._loop.stop)

    def close(self) -> None:
        """Stop the experts; see `aclose`."""
        try:
            if not self._loop.is_stopped:
                self._loop.run(self.dispatcher.aclose())
        finally:
            self._routing.close()
            self._feedback.close()
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
