"""The verbs that compute and ask no expert for an answer: embed, rank, retrieve."""

import asyncio
import threading
from collections.abc import Callable, Collection
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from composer.embedding import Texts, embedded
from composer.gates import Gates
from composer.opening import SETUP_ERRORS, blaming_setup
from composer.retrieval import Retrieval
from composer.routing import Routing
from composer.searches import Searcher, Searches
from composer.stores.retrieved import Retrieved
from experts_registry.registry import Registry
from experts_registry.types import FloatArray, Prompt, Role

__all__ = ["Computing"]

T = TypeVar("T")
_THREADS = 8  # that embed, rank or search at once; a model takes its batches one by one


class Computing:
    """Embeds, ranks and retrieves with the retrievers of a registry; a `Composer` does.

    Args:
        registry: the retrievers and stores.
        searcher: finds passages; by default in the stores of the registry.
    """

    def __init__(self, registry: Registry, *, searcher: Searcher | None = None) -> None:
        self.registry = registry
        self._routing = Routing(registry)
        # Of their own: long texts must not take the threads that decisions are made in.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="retriever")
        self._searcher = searcher
        self._opening = threading.Lock()
        self._retrieval = Retrieval(
            registry=registry,
            searches=Searches(searcher=self._searching, threads=self._threads),
            gates=Gates(registry, self._routing.reader),
            encoder=lambda: None if registry.encoder is None else self._routing.reader(),
        )

    # -- retrieve -------------------------------------------------------------------------------

    def retrieve(
        self,
        query: str,
        k: int | None = None,
        *,
        store: str | None = None,
        retriever: str | None = None,
        stores: Collection[str] | None = None,
    ) -> Retrieved:
        """Search for passages, without asking an expert.

        Args:
            query: what to find.
            k: how many passages; 5 by default.
            store: where; by default the one of all stores that fits the query best.
            retriever: who searches; by default the one that the store's router chooses.
            stores: those that the caller may read; by default all.

        Raises:
            PromptError: the query is empty.
            UnknownNameError: no store that may be read, or no retriever of it, has that name.
            RegistryError: the file has no store.
            ArtefactError: the store is not built, or not for this retriever.
        """
        text = Prompt.of(query).query
        return self._retrieval.search(text, k, store=store, retriever=retriever, stores=stores)

    async def aretrieve(self, query: str, k: int | None = None, **where: Any) -> Retrieved:
        """Async twin of `retrieve`: it is searched in a thread."""
        return await self._computed(partial(self.retrieve, query, k, **where))

    # -- embed ----------------------------------------------------------------------------------

    def embed(
        self, texts: Texts, *, model: str, role: Role = "passage", dimensions: int | None = None
    ) -> FloatArray:
        """Return one unit float32 row per text, or per list of tokens, (n, d), from a retriever.

        Raises:
            UnknownNameError: no retriever is called ``model``.
            OffersError: it has no tokenizer, or no vectors of so few ``dimensions``.
        """
        embedder = self._routing.opened.embedder(model)
        with blaming_setup(model, SETUP_ERRORS):
            return embedded(embedder, model, texts, role=role, dimensions=dimensions)

    async def aembed(self, texts: Texts, *, model: str, **how: Any) -> FloatArray:
        """Async twin of `embed`: the retriever computes in a thread."""
        return await self._computed(partial(self.embed, texts, model=model, **how))

    def relevance(self, query: str, texts: Seq[str], *, model: str) -> FloatArray:
        """Return how well each text answers a query, (n,): a reranker's score, or the cosine.

        Raises:
            UnknownNameError: no reranker and no retriever is called ``model``.
        """
        return self._routing.opened.relevance(query, texts, model=model)

    async def arelevance(self, query: str, texts: Seq[str], *, model: str) -> FloatArray:
        """Async twin of `relevance`: the model computes in a thread."""
        return await self._computed(partial(self.relevance, query, texts, model=model))

    # -- inside ---------------------------------------------------------------------------------

    def _searching(self) -> Searcher:
        """Return what searches the stores; nothing of it is loaded before it is needed."""
        with self._opening:
            if self._searcher is None:
                from composer.stores.searching import Searching

                self._searcher = Searching(self.registry, self._routing.opened)
            return self._searcher

    def _share_stores(self, before: "Computing") -> None:
        """Go on with the stores that an older edition has open, where they are the same."""
        with before._opening:
            older = before._searcher
        if older is None:
            return
        from composer.stores.searching import Searching

        if isinstance(older, Searching) and isinstance(mine := self._searching(), Searching):
            mine.join(older)

    async def _computed(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _stop_computing(self) -> None:
        """Free the retrievers and the stores."""
        self._threads.shutdown(wait=False)
        self._routing.close()
        if (close := getattr(self._searcher, "close", None)) is not None:
            close()
