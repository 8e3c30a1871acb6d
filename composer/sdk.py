"""The Python door: `Composer` asks experts and returns answers that say how they came about."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping
from collections.abc import Sequence as Seq
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import CoroutineType
from typing import Any, Self, TypeVar

from composer.background import BackgroundLoop
from composer.calling import Calling
from composer.computing import Computing
from composer.deadlines import deadline
from composer.dispatch import Dispatcher, LocalDispatcher
from composer.drafting import Drafting
from composer.estimates import most_passages
from composer.evidence import Mode, Wish
from composer.exploring import Exploration
from composer.feedback import Feedback, FeedbackDesk
from composer.plan import Plan
from composer.planning import Planner
from composer.searches import Searcher
from composer.standing import Standings
from composer.status import ExpertStatus
from composer.strategies import Strategy
from composer.streaming import ChunkStream, Progress, Stream, chunks_of
from composer.trace import Answer, Ledger, Trail
from experts_registry.plugins import load_plugin
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, Message, Prompt
from routers.base import Decision

__all__ = ["Composer"]

T = TypeVar("T")
Text = str | Seq[Message | Mapping[str, Any]] | Prompt


class Composer(Computing):
    """Ask a registry of experts as if they were one.

    Every verb has an async twin (``aquery``, ``astream``, ``aroute``, ``aexplain``,
    ``afeedback``, ``aclose``); the plain one may be called from any thread.

    Args:
        registry: the experts and compositions.
        dispatcher: how calls reach experts; by default in this process.
        searcher: finds passages; by default in the stores of the registry.

    Example:
        >>> with Composer.load("experts.yaml") as composer:  # doctest: +SKIP
        ...     print(composer.query("What is 17 * 23?").text)
    """

    def __init__(
        self,
        registry: Registry,
        *,
        dispatcher: Dispatcher | None = None,
        searcher: Searcher | None = None,
    ) -> None:
        super().__init__(registry, searcher=searcher)
        self.dispatcher: Dispatcher = dispatcher or LocalDispatcher(registry.llms)
        self._standings = Standings(registry.llms)
        self._feedback = FeedbackDesk(registry)
        exploration = Exploration(registry, lambda: self._feedback.store)
        self._planner = Planner(
            registry, self._routing, exploration, self._standings, self._retrieval
        )
        self._loop = BackgroundLoop()

    @classmethod
    def load(cls, path: str | Path, *, workers: bool = False) -> Self:
        """Read an expert file; ``workers`` runs its experts on Ray instead of in this process."""
        return cls.over(Registry.load(path), workers=workers)

    @classmethod
    def over(
        cls, registry: Registry, *, workers: bool = False, before: "Composer | None" = None
    ) -> Self:
        """Ask a registry that is loaded already.

        Args:
            registry: the experts and compositions.
            workers: run them on Ray instead of in this process.
            before: a composer of an older edition, whose answers may still get feedback here.
                What it has open, and what it knows of how experts fail, is shared where their
                specs are the same.
        """
        older = before.dispatcher if before is not None else None
        dispatcher: Dispatcher
        if workers:
            from composer.ray_dispatch import RayDispatcher

            held = older if isinstance(older, RayDispatcher) else None
            dispatcher = RayDispatcher(registry.llms, before=held)
        else:
            shared = older if isinstance(older, LocalDispatcher) else None
            dispatcher = LocalDispatcher(registry.llms, before=shared)
        composer = cls(registry, dispatcher=dispatcher)
        if before is not None:
            composer._feedback.join(before._feedback)
            composer._standings.join(before._standings)
            composer._share_stores(before)
        return composer

    # -- choose ---------------------------------------------------------------------------------

    def route(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> Decision:
        """Say whom ``query`` would ask, without asking; see `aroute`."""
        if how or self._planner.is_searching(model):
            return self.run(self.aroute(text_or_messages, model=model, **how))
        return self._planner.choose_by(Prompt.of(text_or_messages), model, None)

    async def aroute(
        self,
        text_or_messages: Text,
        *,
        model: str = "auto",
        retrieval: Mode | None = None,
        stores: Collection[str] | None = None,
        **sampling: Any,
    ) -> Decision:
        """Say whom ``query`` would ask, without asking; arguments are those of `aquery`.

        Stores are searched where the decision depends on what they hold, or the composition
        retrieves.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            PromptError: the query is empty, or no expert may be asked.
        """
        prompt = Prompt.of(text_or_messages, **sampling)
        return await self._planner.choose(prompt, model, Wish(mode=retrieval, stores=stores))

    def explain(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> str:
        """Say in words whom ``query`` would ask and why, from the numbers that decide."""
        from composer.explanation import explain

        return explain(self.route(text_or_messages, model=model, **how))

    async def aexplain(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> str:
        """Async twin of `explain`."""
        from composer.explanation import explain

        return explain(await self.aroute(text_or_messages, model=model, **how))

    def candidates(self, model: str) -> list[ExpertSpec]:
        """Return the experts that may come to answer a model.

        Raises:
            UnknownNameError: no composition or expert is called that.
        """
        return self._routing.candidates(model)

    def status(self) -> dict[str, ExpertStatus]:
        """Say of every LLM where it is, how busy, and whether it is left alone for its failures."""
        return {n: one.status(self.dispatcher.tier(n)) for n, one in self._standings.items()}

    def limited(self, prompt: Prompt, model: str) -> Prompt:
        """Return a prompt with the limit of tokens that a composition sets where it has none."""
        composition = self._routing.composition(model)
        if composition is None:
            return prompt
        return prompt.limited(max_tokens=composition.limits.max_tokens)

    def most_passages(self, model: str, wish: Wish | None = None) -> int:
        """Return the most tokens of passages that come before a question to a model."""
        composition, wish = self._routing.composition(model), wish or Wish()
        spec = None if composition is None else composition.retrieval
        if spec is None or (wish.mode or spec.when) == "never":
            return 0
        readable = {name: self.registry.store(name) for name in wish.readable(spec.stores)}
        return most_passages(spec, readable)

    def most_drafts(self, model: str) -> int:
        """Return the most drafts that a gate asks for before a question to a model is answered."""
        composition = self._routing.composition(model)
        spec = None if composition is None else composition.retrieval
        return int(spec is not None and spec.gate is not None)

    # -- ask ------------------------------------------------------------------------------------

    async def aquery(
        self,
        text_or_messages: Text,
        *,
        model: str = "auto",
        retrieval: Mode | None = None,
        stores: Collection[str] | None = None,
        trail: Trail | None = None,
        **sampling: Any,
    ) -> Answer:
        """Answer a query.

        Args:
            text_or_messages: a text, messages in OpenAI's shape, or a `Prompt`.
            model: a composition, or one expert by name.
            retrieval: ``never`` or ``always`` put passages before the question, ``auto`` asks the
                gate; by default as the composition says.
            stores: those that the caller may read; by default all.
            trail: is told how far the request came, also where it fails.
            **sampling: fields of `Sampling`, for example ``max_tokens=64``.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            PromptError: the query is empty or too long, or no expert may be asked.
            ExpertError: the experts that were asked failed; the subclass says how.
        """
        prompt, wish = Prompt.of(text_or_messages, **sampling), Wish(mode=retrieval, stores=stores)
        plan, call = await self._begin(prompt, model, wish, trail)
        strategy: Strategy = load_plugin("strategies", plan.strategy)()
        async with deadline(plan.who, plan.seconds, left=plan.left):
            generation = await strategy(plan.prompt, plan.decision, call)
        return self._feedback.remember(call.ledger.answer(generation, plan.decision))

    def query(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> Answer:
        """Answer a query; see `aquery`."""
        return self.run(self.aquery(text_or_messages, model=model, **how))

    def astream(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``async for``."""
        chunks = self.achunks(text_or_messages, model=model, **how)
        return Stream(chunks, self._loop.run)

    def achunks(
        self,
        text_or_messages: Text,
        *,
        model: str = "auto",
        retrieval: Mode | None = None,
        stores: Collection[str] | None = None,
        trail: Trail | None = None,
        **sampling: Any,
    ) -> ChunkStream:
        """Stream whole chunks, with tool calls, and who answers; `astream` gives their texts."""
        progress: list[Progress] = []
        prompt, wish = Prompt.of(text_or_messages, **sampling), Wish(mode=retrieval, stores=stores)
        return ChunkStream(self._chunks(prompt, model, wish, progress, trail), progress)

    def stream(self, text_or_messages: Text, *, model: str = "auto", **how: Any) -> Stream:
        """Answer a query piece by piece; iterate over the result with ``for``."""
        return self.astream(text_or_messages, model=model, **how)

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
            UnknownAnswerError: no such answer is known.
            DataError: the feedback cannot be stored.
        """
        return self._feedback.take(answer, quality, grader)

    async def afeedback(
        self, answer: Answer | str, quality: float, *, grader: str = "user"
    ) -> Feedback:
        """Async twin of `feedback`: the database is written to in a thread."""
        return await asyncio.to_thread(self.feedback, answer, quality, grader=grader)

    # -- inside ---------------------------------------------------------------------------------

    async def _begin(
        self, prompt: Prompt, model: str, wish: Wish, trail: Trail | None
    ) -> tuple[Plan, Calling]:
        composition = self._routing.composition(model)
        named = model if composition is None else composition.name
        ledger = Ledger(self.registry, prompt.query, named)
        drafting = partial(Drafting, prompt, ledger, trail, self.dispatcher, self._standings)
        plan = await self._planner.plan(prompt, model, wish, drafting)
        if trail is not None:
            trail.note(plan.began, plan.decision, ledger)
        return plan, Calling(plan, ledger, self.dispatcher, self._standings)

    async def _chunks(
        self,
        prompt: Prompt,
        model: str,
        wish: Wish,
        progress: list[Progress],
        trail: Trail | None,
    ) -> AsyncGenerator[Chunk]:
        plan, calling = await self._begin(prompt, model, wish, trail)
        progress.append(Progress(plan, calling.ledger))
        source = chunks_of(progress[0], calling, self._feedback.remember)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                yield chunk

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
            self._stop_computing()
            self._feedback.close()
            await asyncio.to_thread(self._loop.stop)

    def close(self) -> None:
        """Stop the experts; see `aclose`."""
        try:
            if not self._loop.is_stopped:
                self._loop.run(self.dispatcher.aclose())
        finally:
            self._stop_computing()
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
