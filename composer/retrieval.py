"""From a question to its evidence: whether passages are retrieved, from which store, and which.

Searching computes, so it runs in threads; a store that fails or is late costs a request its
passages and never its answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from composer.grounding import grounded
from composer.store_choice import best_store
from composer.stores.retrieved import Retrieved
from experts_registry.errors import ComposerError, OptionError, RegistryError, unknown_name
from experts_registry.passages import Passage
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import RetrievalSpec
from experts_registry.schema import Composition
from experts_registry.types import Prompt
from routers.arms import Found, RetrievalDecision
from routers.transforms import ScoreTransform

__all__ = ["MODES", "Evidence", "Mode", "Retrieval", "Searcher", "Wish"]

logger = logging.getLogger(__name__)

Mode = Literal["auto", "never", "always"]
MODES: tuple[Mode, ...] = ("auto", "never", "always")
_SHARE = 0.5  # of the time that a request has left: the rest is for its answer
_K = 5  # passages where nobody says how many


class Searcher(Protocol):
    """Finds passages in stores; safe from any thread."""

    def search(self, store: str, query: str, k: int, *, retriever: str | None = None) -> Retrieved:
        """Return the ``k`` best passages for a query.

        Raises:
            UnknownNameError: no store, or no retriever of it, has that name.
            ArtefactError: the store is not built, or not for this retriever.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller wants of retrieval.

    Args:
        mode: replaces the ``when`` of the file; None leaves it.
        stores: those that the caller may read; None is all.

    Raises:
        OptionError: there is no such mode.
    """

    mode: Mode | None = None
    stores: Collection[str] | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise OptionError(f"retrieval: {self.mode!r} is not one of {', '.join(MODES)}")

    def readable(self, stores: Sequence[str]) -> tuple[str, ...]:
        """Return those of these stores that the caller may read."""
        return tuple(s for s in stores if self.stores is None or s in self.stores)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was retrieved for a request, and what it says about whom to ask.

    Args:
        decision: whether, from where and why.
        passages: best first; none where it was decided so, or where retrieving failed.
        transforms: couple the choice of the expert with it.
    """

    decision: RetrievalDecision
    passages: tuple[Passage, ...] = ()
    transforms: tuple[ScoreTransform, ...] = ()

    def before(self, prompt: Prompt) -> Prompt:
        """Return a prompt with all the passages: the most that an expert is sent of them."""
        return grounded(prompt, self.passages)[0]

    def dropped(self, reason: str) -> "Evidence":
        """Return what is left where its passages cannot be used."""
        decision = replace(self.decision, store=None, k=0, stage="failure", reason=reason)
        return Evidence(decision=decision)


@dataclass(kw_only=True)
class Retrieval:
    """Retrieves for one registry generation.

    Args:
        registry: the stores and compositions.
        searcher: searches the stores.
        threads: where searches run.
    """

    registry: Registry
    searcher: Callable[[], Searcher]
    threads: Executor = field(repr=False)

    def search(
        self,
        query: str,
        k: int | None,
        *,
        store: str | None,
        retriever: str | None,
        stores: Collection[str] | None,
    ) -> Retrieved:
        """Search a store, or of several the one that fits the query best; computes.

        Raises:
            UnknownNameError: no readable store, or no retriever of it, has that name.
            RegistryError: the file has no store.
            ArtefactError: the store is not built, or not for this retriever.
        """
        k = _checked(_K if k is None else k)
        readable = Wish(stores=stores).readable(tuple(self.registry.stores))
        if store is not None and store not in readable:
            raise unknown_name("store", store, readable)
        names = readable if store is None else (store,)
        if not names:
            raise RegistryError(
                f"{self.registry.path}: stores: there is none to search; name one under 'stores:'"
            )
        searcher = self.searcher()
        found = {name: searcher.search(name, query, k, retriever=retriever) for name in names}
        best, why = best_store(found)
        chosen = found[best]
        if not why:
            return chosen
        reason = "; ".join(filter(None, (chosen.decision.reason, f"store {why}")))
        return replace(
            chosen,
            decision=replace(chosen.decision, reason=reason),
            seconds=sum(one.seconds for one in found.values()),
        )

    async def evidence(
        self, query: str, composition: Composition, wish: Wish, left: float
    ) -> Evidence | None:
        """Decide whether to retrieve for a query, and do so; None where that was not asked.

        Args:
            query: the question.
            composition: what answers it.
            wish: the caller's.
            left: seconds until the request's deadline.

        Raises:
            OptionError: the caller wants passages, and the composition has no store.
        """
        spec = composition.retrieval
        if spec is None:
            if wish.mode == "always":
                raise OptionError(
                    f"retrieval: composition {composition.name!r} has no store; name one under its "
                    "'retrieval:', or leave this out"
                )
            return None
        began = time.perf_counter()
        evidence = await self._evidence(query, spec, wish, min(spec.seconds, _SHARE * left))
        decision = replace(evidence.decision, seconds=time.perf_counter() - began)
        return replace(evidence, decision=decision)

    async def _evidence(
        self, query: str, spec: RetrievalSpec, wish: Wish, seconds: float
    ) -> Evidence:
        mode, stage = wish.mode or spec.when, "request" if wish.mode else "file"
        stores = wish.readable(spec.stores)
        if mode == "never":
            return _without("passages are not wanted", stage)
        if not stores:
            return _without("the caller may read none of its stores", "request")
        found, problems = await self._searched(stores, query, spec.k, seconds)
        if not found:
            return _without("; ".join(problems.values()), "failure")
        store, why = best_store(found)
        reason = "passages are wanted always" if mode == "always" else "no gate is trained"
        return _with(found[store], spec.k, "; ".join(filter(None, (reason, why))), stage)

    async def _searched(
        self, stores: Sequence[str], query: str, k: int, seconds: float
    ) -> tuple[dict[str, Retrieved], dict[str, str]]:
        """Search stores side by side; return what they found in time, and what kept the others."""
        loop = asyncio.get_running_loop()
        tasks = {
            name: loop.run_in_executor(self.threads, self._search, name, query, k)
            for name in stores
        }
        try:
            await asyncio.wait(tasks.values(), timeout=max(0.0, seconds))
        finally:
            for task in tasks.values():
                task.cancel()  # one that has begun runs on, and nobody waits for it
        return _sorted(tasks, seconds)

    def _search(self, store: str, query: str, k: int) -> Retrieved:
        return self.searcher().search(store, query, k)


def _sorted(
    tasks: Mapping[str, "asyncio.Future[Retrieved]"], seconds: float
) -> tuple[dict[str, Retrieved], dict[str, str]]:
    found: dict[str, Retrieved] = {}
    problems: dict[str, str] = {}
    for name, task in tasks.items():
        if not task.done() or task.cancelled():
            problems[name] = f"store {name!r} was not searched within {seconds:.3g} s"
        elif (error := task.exception()) is not None:
            problems[name] = f"store {name!r} could not be searched ({type(error).__name__})"
            logger.warning("store %s: %s", name, error if _is_ours(error) else type(error).__name__)
        elif not (retrieved := task.result()).passages:
            problems[name] = f"store {name!r} has nothing for it"
        else:
            found[name] = retrieved
    return found, problems


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, ComposerError)  # ours never repeat a query; a plug-in's may


def _with(retrieved: Retrieved, k: int, reason: str, stage: str) -> Evidence:
    decision = RetrievalDecision(
        store=retrieved.store,
        k=k,
        reason=reason,
        stage=stage,
        retrievers=retrieved.decision.experts,
        found=tuple(Found(p.id, p.score) for p in retrieved.passages),
    )
    return Evidence(decision=decision, passages=retrieved.passages)


def _without(reason: str, stage: str) -> Evidence:
    return Evidence(decision=RetrievalDecision(store=None, reason=reason, stage=stage))


def _checked(k: int) -> int:
    if k < 1:
        raise OptionError(f"k: {k} is below 1; use 1 or more")
    return k
