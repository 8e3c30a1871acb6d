"""A small library to retrieve from, searched by the hashing encoder: real numbers, no files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from composer import Composer
from composer.stores.retrieved import Retrieved
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.errors import ArtefactError, unknown_name
from experts_registry.passages import Passage
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from routers.decision import Decision

__all__ = ["FACTS", "Shelf", "library", "registry"]

FACTS = {
    "handbook": (
        "Holiday requests go to the office before the first of May.",
        "The canteen opens at noon and closes at two.",
        "Lost keys are replaced by the caretaker for ten francs.",
    ),
    "manual": (
        "Press the red button twice to reset the pump.",
        "The filter of the pump is cleaned every month.",
    ),
}
REGISTRY = """\
version: 1
experts:
  - {name: echo, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 2}}
  - {name: words, kind: retriever, backend: hashing, model: hashing}
EXPERTSstores:
  - {name: handbook, passages: handbook.jsonl, retrievers: [words]}
  - {name: manual, passages: manual.jsonl, retrievers: [words]}
compositions:
  - {name: plain, experts: [echo]}
  - {name: grounded, experts: [echo], retrieval: {store: handbook, k: 2}}
  - {name: either, experts: [echo], retrieval: {store: [handbook, manual], k: 2}}
  - {name: shy, experts: [echo], retrieval: {store: handbook, when: never}}
  - {name: hasty, experts: [echo], retrieval: {store: handbook, seconds: 0.05}}
COMPOSITIONS"""


class Shelf:
    """Searches passages in memory by cosine.

    Args:
        texts: of each store.
        broken: stores that cannot be searched.
        delay: seconds that every search takes.
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[str]] = FACTS,
        *,
        broken: Sequence[str] = (),
        delay: float = 0.0,
    ) -> None:
        spec = ExpertSpec(name="words", kind="retriever", backend="hashing", model="hashing")
        self._encoder = HashingEmbedder(spec)
        self._texts, self._broken, self.delay = texts, broken, delay
        self.searched: list[str] = []

    def search(self, store: str, query: str, k: int, *, retriever: str | None = None) -> Retrieved:
        """Return the nearest passages."""
        time.sleep(self.delay)
        self.searched.append(store)
        if retriever not in (None, "words"):
            raise unknown_name("retriever", str(retriever), ["words"])
        if store in self._broken:
            raise ArtefactError(f"store {store!r}: is not built; build it")
        texts = self._texts[store]
        if not texts:
            return Retrieved(passages=(), store=store, decision=Decision(("words",), (), ""))
        x = self._encoder.embed(texts, role="passage")
        scores = x @ self._encoder.embed([query], role="query")[0]
        rows = np.argsort(-scores, kind="stable")[:k].tolist()
        passages = tuple(
            Passage(id=f"{store}-{i}", text=texts[i], score=float(scores[i]), store=store)
            for i in rows
        )
        return Retrieved(
            passages=passages,
            store=store,
            decision=Decision(("words",), (), "the only retriever"),
            similarity=tuple(p.score for p in passages),
        )


def registry(*, experts: str = "", compositions: str = "", path: Path | str = "e.yaml") -> Registry:
    """Return the registry of the library, with more experts and compositions where given."""
    text = REGISTRY.replace("EXPERTS", experts).replace("COMPOSITIONS", compositions)
    return Registry.parse(text, path=path)


def library(shelf: Shelf | None = None, **more: str) -> Composer:
    """Return a composer over the library."""
    return Composer(registry(**more), searcher=shelf or Shelf())
