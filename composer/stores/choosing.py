"""Which retrievers of a store search for a query.

Lee, Soldaini, Cohan, Seo, Lo, "RouterRetriever: Routing over a Mixture of Expert Embedding
Models", AAAI 2025, https://arxiv.org/abs/2409.02685: the pilot router of the store says it.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from composer.pilots import load_pilots
from composer.stores.current import Current, file_mark
from experts_registry.errors import RegistryError, unknown_name
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import StoreSpec
from experts_registry.types import Embedder
from routers.base import Router
from routers.decision import Decision

__all__ = ["Choosing"]

logger = logging.getLogger(__name__)


class Choosing:
    """Chooses with the pilot routers of one registry generation; safe from any thread.

    Args:
        registry: names stores and retrievers; those that are disabled are never chosen.
        embedder: opens a retriever by its name.
    """

    def __init__(self, registry: Registry, embedder: Callable[[str], Embedder]) -> None:
        self._registry = registry
        self._embedder = embedder
        self._pilots: dict[str, Current[Router | None]] = {}
        self._lock = threading.Lock()

    def decide(self, store: str, query: str, *, retriever: str | None = None) -> Decision:
        """Rank the retrievers that search a store, as many as its lists are fused.

        Args:
            store: its name.
            query: the text.
            retriever: asks this one alone.

        Raises:
            UnknownNameError: there is no such store, or it has no such retriever.
            RegistryError: all its retrievers are disabled.
            ArtefactError: its pilot router is damaged, or is of an encoder that is not registered.
        """
        spec = self._registry.store(store)
        names = self._enabled(spec)
        if retriever is not None:
            if retriever not in names:
                raise unknown_name(f"retriever of store {store!r}:", retriever, names)
            return Decision((retriever,), (), "asked by name")
        pilot = self._pilot(spec) if len(names) > 1 else None
        if pilot is not None:
            return pilot.route(query, k=min(spec.fuse, len(names)), experts=names)
        if len(names) == 1:
            return Decision((names[0],), (), "the only retriever")
        chosen = tuple(names[: spec.fuse])
        return Decision(chosen, (), "first in the file; no pilot router chooses")

    def _enabled(self, spec: StoreSpec) -> list[str]:
        names = [name for name in spec.retrievers if name in self._registry.retrievers]
        if not names:
            raise RegistryError(
                f"{self._registry.path}: store {spec.name!r}: none of its retrievers is enabled; "
                f"enable one of {', '.join(spec.retrievers)}"
            )
        return names

    def _pilot(self, spec: StoreSpec) -> Router | None:
        if spec.router is None:
            return None
        folder = self._registry.resolve(spec.router)
        with self._lock:
            current = self._pilots.setdefault(
                spec.name,
                Current(
                    lambda: self._load(spec, folder), lambda: file_mark(folder / "router.json")
                ),
            )
        return current.get()

    def _load(self, spec: StoreSpec, folder: Path) -> Router | None:
        if not (folder / "router.json").exists():
            logger.warning(
                "store %s: %s holds no pilot router yet; the first retriever is asked",
                spec.name, folder,
            )  # fmt: skip
            return None
        return load_pilots(folder, self._registry, self._embedder)
