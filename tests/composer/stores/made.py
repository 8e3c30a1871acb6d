"""Small stores of hashed words, and a count of what their retrievers embed."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from composer.opened import Opened
from composer.stores.building import Built
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from composer.stores.standing import StoreStanding, standing
from composer.stores.store import Store
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.registry import Registry

YAML = """\
version: 1
experts:
  - {name: words, kind: retriever, backend: "tests.composer.stores.made:Counting", model: x}
  - {name: small, kind: retriever, backend: "tests.composer.stores.made:Counting", model: x,
     options: {dimensions: 32}}
encoder: words
stores:
  - {name: guides, passages: docs, retrievers: [words]}
"""
EMBEDDED: list[tuple[int, str]] = []  # dimensions and text of every passage that was embedded


class Counting(HashingEmbedder):
    def embed(self, texts, *, role):
        x = super().embed(texts, role=role)
        if role == "passage":
            EMBEDDED.extend((x.shape[1], text) for text in texts)
        return x


class Site:
    """A folder with an expert file and the documents of its store."""

    def __init__(self, folder: Path, yaml: str = YAML) -> None:
        self.path = folder / "experts.yaml"
        self.docs = folder / "docs"
        self.docs.mkdir()
        self.folder = folder / "stores" / "guides"
        self.write(yaml)

    def write(self, yaml: str) -> None:
        self.path.write_text(yaml)

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def jsonl(self, texts: Mapping[str, str], name: str = "texts.jsonl") -> Path:
        return self.file(
            name, "".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in texts.items())
        )

    def build(self, **change: object) -> Built:
        EMBEDDED.clear()
        registry = Registry.load(self.path)
        return build_store(registry, "guides", Change(**change), workers=False, steps=_unseen)

    def open(self) -> Store:
        return Store.open(self.folder, name="guides")

    def standing(self, **kwargs: bool) -> StoreStanding:
        registry = Registry.load(self.path)
        return standing(registry, "guides", Opened(registry).embedder, **kwargs)

    def found(self, query: str, retriever: str = "words", k: int = 1) -> list[str]:
        opened, store = Opened(Registry.load(self.path)), self.open()
        embedder = opened.embedder(retriever)
        rows, _ = store.index(embedder).search(embedder.embed([query], role="query"), k)
        return [store.passage(row).id for row in rows[0] if row >= 0]

    def ids(self) -> list[str]:
        store = self.open()
        return [store.passage(row).id for row in range(len(store))]


def _unseen(total, what):
    return nullcontext(lambda name: None)
