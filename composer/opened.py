"""The experts that only compute, embedders and rerankers, each opened once and when needed."""

import threading
from collections.abc import Sequence

from composer.opening import SETUP_ERRORS, blaming_setup, open_embedder, open_reranker
from experts_registry.errors import unknown_name
from experts_registry.registry import Registry
from experts_registry.types import Embedder, FloatArray, Reranker
from routers.encoding import CachedEncoder

__all__ = ["Opened"]

_RECENT = 256  # queries whose vectors are kept


class Opened:
    """Opens the retrievers and rerankers of one registry generation; safe from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._embedders: dict[str, Embedder] = {}
        self._readers: dict[str, CachedEncoder] = {}
        self._rerankers: dict[str, Reranker] = {}
        self._lock = threading.RLock()

    def embedder(self, name: str) -> Embedder:
        """Return a retriever.

        Raises:
            UnknownNameError: no retriever has that name.
        """
        with self._lock:
            if name not in self._embedders:
                retrievers = self._registry.retrievers
                if name not in retrievers:
                    raise unknown_name("retriever", name, retrievers)
                with blaming_setup(name):
                    self._embedders[name] = open_embedder(retrievers[name])
            return self._embedders[name]

    def reader(self, name: str) -> CachedEncoder:
        """Return a retriever that keeps the vectors of recent queries.

        What is routed, weighed by a gate and searched for is so embedded once.

        Raises:
            UnknownNameError: no retriever has that name.
        """
        with self._lock:
            if name not in self._readers:
                self._readers[name] = CachedEncoder(self.embedder(name), _RECENT)
            return self._readers[name]

    def relevance(self, query: str, texts: Sequence[str], *, model: str) -> FloatArray:
        """Return how well each text answers a query, (n,): a reranker's score, or the cosine.

        Raises:
            UnknownNameError: no reranker and no retriever has that name.
        """
        if model in self._registry.rerankers:
            reranker = self._reranker(model)
            with blaming_setup(model, SETUP_ERRORS):
                return reranker.relevance(query, texts)
        known = {**self._registry.rerankers, **self._registry.retrievers}
        if model not in known:
            raise unknown_name("reranker or retriever", model, known)
        embedder = self.embedder(model)
        with blaming_setup(model, SETUP_ERRORS):
            x = embedder.embed([query], role="query")  # (1, d)
            scores: FloatArray = embedder.embed(texts, role="passage") @ x[0]
        return scores

    def close(self) -> None:
        """Free them."""
        with self._lock:
            for embedder in self._embedders.values():
                embedder.close()
            for reranker in self._rerankers.values():
                reranker.close()
            self._embedders.clear()
            self._readers.clear()
            self._rerankers.clear()

    def _reranker(self, name: str) -> Reranker:
        with self._lock:
            if name not in self._rerankers:
                with blaming_setup(name):
                    self._rerankers[name] = open_reranker(self._registry.rerankers[name])
            return self._rerankers[name]
