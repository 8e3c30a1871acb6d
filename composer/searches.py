"""Search stores side by side in threads, until a moment; what fails or is late is left out."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from composer.stores.retrieved import Retrieved
from experts_registry.errors import ComposerError

__all__ = ["Searched", "Searcher", "Searches"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
_OPENING_SECONDS = 60.0


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
class Searched:
    """What stores have for a query.

    Args:
        found: by store, at least one passage each.
        problems: by store, why there is nothing of it.
    """

    found: Mapping[str, Retrieved] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def why_not(self) -> str:
        """All the problems in words."""
        return "; ".join(self.problems.values())


@dataclass(frozen=True, kw_only=True)
class Searches:
    """Searches for requests.

    Args:
        searcher: searches one store.
        threads: where searches run, so that they never hold the event loop.
    """

    searcher: Callable[[], Searcher]
    threads: Executor = field(repr=False)
    _warm: set[str] = field(default_factory=set, init=False, repr=False)
    _tried: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def patience(self, stores: Sequence[str], seconds: float, at_most: float) -> float:
        """Return until when to wait for these stores.

        The first search of a store opens it and loads its retriever, which may take longer than
        any search: it is waited for as long as the request allows, but not again and again.

        Args:
            stores: those that will be searched.
            seconds: how long to wait for stores that were searched before.
            at_most: when to stop in any case; in `time.perf_counter` seconds, as the answer.
        """
        now = time.perf_counter()
        cold = [store for store in stores if store not in self._warm]
        opening = [self._tried.setdefault(store, now) + _OPENING_SECONDS for store in cold]
        return min(at_most, max([now + seconds, *opening]))

    async def of(self, stores: Sequence[str], query: str, k: int, until: float) -> Searched:
        """Search each of these stores until a moment, in `time.perf_counter` seconds."""
        seconds = max(0.0, until - time.perf_counter())
        work = {store: self._begun(store, query, k) for store in stores}
        try:
            if work:
                await asyncio.wait(work.values(), timeout=seconds)
        finally:
            for task in work.values():
                task.cancel()  # one that has begun runs on, and nobody waits for it
        return _sorted(work, seconds)

    async def computed(self, work: Callable[[], T], until: float) -> T:
        """Compute something else in these threads.

        Raises:
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(max(0.0, until - time.perf_counter())):
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def _begun(self, store: str, query: str, k: int) -> "asyncio.Future[Retrieved]":
        def search() -> Retrieved:
            found = self.searcher().search(store, query, k)
            self._warm.add(store)
            return found

        return asyncio.get_running_loop().run_in_executor(self.threads, search)


def _sorted(work: Mapping[str, "asyncio.Future[Retrieved]"], seconds: float) -> Searched:
    found: dict[str, Retrieved] = {}
    problems: dict[str, str] = {}
    for store, task in work.items():
        if not task.done() or task.cancelled():
            problems[store] = f"store {store!r} was not searched within {seconds:.3g} s"
        elif (error := task.exception()) is not None:
            problems[store] = f"store {store!r} could not be searched ({type(error).__name__})"
            # Our own texts never repeat a query; those of a plug-in may.
            told = error if isinstance(error, ComposerError) else type(error).__name__
            logger.warning("store %s: cannot be searched: %s", store, told)
        elif not (retrieved := task.result()).passages:
            problems[store] = f"store {store!r} has nothing for it"
        else:
            found[store] = retrieved
    return Searched(found=found, problems=problems)
