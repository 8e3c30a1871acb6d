"""Search the stores of a registry: choose retrievers, fuse their lists, rerank."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from composer.opened import Opened
from composer.opening import SETUP_ERRORS, blaming_setup
from composer.stores.choosing import Choosing
from composer.stores.current import Current
from composer.stores.fusion import fused
from composer.stores.generations import build_command, current_mark
from composer.stores.indexed_text import indexed_text
from composer.stores.retrieved import Retrieved
from composer.stores.store import Store
from experts_registry.errors import ArtefactError, OptionError, PromptError
from experts_registry.passages import Passage
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import StoreSpec
from routers.features import window

__all__ = ["MOST", "WORDS", "Searching"]

MOST = 1000  # passages of one search
WORDS = "bm25"  # who found a passage by its words

Ranking = tuple[str, list[int], list[float]]  # who ranked; rows and scores, best first


class Searching:
    """Searches the stores of one registry generation; safe from any thread.

    A store is opened when it is first searched, and again after it was rebuilt.
    """

    def __init__(self, registry: Registry, opened: Opened) -> None:
        self._registry = registry
        self._opened = opened
        self._stores: dict[str, Current[Store]] = {}
        self._lock = threading.Lock()
        self._choosing = Choosing(registry, opened.reader)

    def join(self, older: "Searching") -> None:
        """Share the stores that an older edition has open, where the edit did not change them."""
        with older._lock:
            held = dict(older._stores)
        same = {n: one for n, one in held.items() if self._place(n) == older._place(n)}
        with self._lock:
            self._stores = same | self._stores

    def close(self) -> None:
        """Let go of the stores; they are freed with whoever else holds them."""
        with self._lock:
            self._stores = {}

    def search(self, store: str, query: str, k: int, *, retriever: str | None = None) -> Retrieved:
        """Find passages for a query.

        Args:
            store: its name.
            query: of one that is long, head and tail are read.
            k: how many, from 1 to 1000.
            retriever: asks this one instead of whom the pilot router chooses.

        Raises:
            UnknownNameError: no store is called that, or it has no such retriever.
            PromptError: the query is empty.
            OptionError: ``k`` is out of its range.
            ArtefactError: the store is not built, or not for a retriever that was chosen.
        """
        started = time.perf_counter()
        spec = self._registry.store(store)
        _check(query, k)
        query = window(query)
        decision = self._choosing.decide(store, query, retriever=retriever)
        opened = self._store(spec)
        wide = bool(spec.reranker or spec.lexical or len(decision.experts) > 1)
        depth = max(k, spec.candidates) if wide else k
        rankings = [self._by_vectors(opened, name, query, depth) for name in decision.experts]
        similarity = tuple(np.clip(rankings[0][2][:k], -1, 1).tolist())
        if spec.lexical:
            rankings.append(_by_words(opened, spec, query, depth))
        found = _passages(opened, rankings)
        if spec.reranker is not None:
            found = self._reranked(spec.reranker, query, found[:depth])
        return Retrieved(
            passages=tuple(found[:k]),
            store=store,
            decision=decision,
            seconds=time.perf_counter() - started,
            similarity=similarity,
        )

    def _place(self, name: str) -> tuple[StoreSpec, Path] | None:
        spec = self._registry.stores.get(name)
        return None if spec is None else (spec, self._registry.store_folder(name))

    def _store(self, spec: StoreSpec) -> Store:
        folder = self._registry.store_folder(spec.name)
        with self._lock:
            current = self._stores.setdefault(
                spec.name,
                Current(lambda: Store.open(folder, name=spec.name), lambda: current_mark(folder)),
            )
        opened = current.get()
        opened.check()
        return opened

    def _by_vectors(self, store: Store, name: str, query: str, k: int) -> Ranking:
        encoder = self._opened.reader(name)
        with blaming_setup(name, SETUP_ERRORS):
            x = encoder.embed([query], role="query")  # (1, d)
        rows, scores = store.index(encoder.encoder).search(x, min(k, max(1, len(store))))
        found = rows[0] >= 0
        return name, rows[0][found].tolist(), scores[0][found].tolist()

    def _reranked(self, reranker: str, query: str, passages: list[Passage]) -> list[Passage]:
        if not passages:
            return passages
        texts = [indexed_text(passage) for passage in passages]
        scores = self._opened.relevance(query, texts, model=reranker)
        order = np.argsort(-scores, kind="stable")
        return [replace(passages[i], score=float(scores[i])) for i in order]


def _check(query: str, k: int) -> None:
    if not isinstance(query, str) or not query.strip():
        raise PromptError("query: it is empty; write what to look for")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST:
        raise OptionError(f"k: {k!r} is not a whole number from 1 to {MOST}")


def _by_words(store: Store, spec: StoreSpec, query: str, k: int) -> Ranking:
    if store.lexical is None:
        raise ArtefactError(
            f"store {spec.name!r}: is built without an index of words; {build_command(spec.name)}"
        )
    rows, scores = store.lexical.search(query, k)
    return WORDS, rows.tolist(), scores.tolist()


def _passages(store: Store, rankings: Sequence[Ranking]) -> list[Passage]:
    """Return what was found, best first; the only ranking keeps its own scores."""
    if len(rankings) == 1:
        _, rows, own = rankings[0]
        scores = dict(zip(rows, own, strict=True))
    else:
        scores = fused([rows for _, rows, _ in rankings])
    finders: dict[int, tuple[str, ...]] = {}
    for name, rows, _ in rankings:
        for row in rows:
            finders[row] = (*finders.get(row, ()), name)
    return [
        replace(store.passage(row), score=score, store=store.name, retrievers=finders[row])
        for row, score in scores.items()
    ]
