"""Put a trained retriever into the expert file, beside its base."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experts_registry.edit import add_expert
from experts_registry.errors import DataError, ModelSourceError, RegistryError, unknown_name
from experts_registry.lines import parse_yaml, read_text
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec

__all__ = ["Newcomer"]

_TRAINABLE = "sentence_transformers"
_INHERITED = ("sha256", "resources", "active_params", "price", "limits")


@dataclass(frozen=True)
class Newcomer:
    """The retriever that is to be.

    Args:
        registry: the expert file.
        name: of the retriever.
        base: of the retriever that it is trained on.
        folder: where its adapter is going to be.
        domains: what it is for.
        stores: that it is to search.
    """

    registry: Registry
    name: str
    base: str
    folder: Path
    domains: Sequence[str] = ()
    stores: Sequence[str] = ()

    @property
    def base_spec(self) -> ExpertSpec:
        """The base, as the file has it."""
        return self.registry.retrievers[self.base]

    def check(self) -> None:
        """Check all that can be known before the training.

        Raises:
            UnknownNameError: there is no such base or store.
            RegistryError: the name is taken, or the base cannot be trained.
            DataError: the folder is there already.
        """
        file = self.registry.path
        if self.base not in self.registry.retrievers:
            raise unknown_name("retriever", self.base, self.registry.retrievers)
        for store in self.stores:
            self.registry.store(store)
        if self.name in {spec.name for spec in self.registry.file.experts}:
            raise RegistryError(
                f"{file}: expert {self.name!r} is there already; choose another name, or "
                f"'expert-composer experts remove {self.name}' first"
            )
        if ".." in Path(self.name).parts:
            raise RegistryError(f"{self.name!r} is no name of an expert; leave out '..'")
        spec = self.base_spec
        if spec.backend != _TRAINABLE:
            raise ModelSourceError(
                f"expert {self.base!r}: backend {spec.backend!r} has no weights to train; name a "
                f"retriever of backend {_TRAINABLE}"
            )
        if used := spec.options.keys() & {"adapter", "layers"}:
            raise ModelSourceError(
                f"expert {self.base!r}: options.{min(used)}: it is not a whole model by itself; "
                "name the retriever that it was made from"
            )
        if os.path.lexists(self.folder):
            raise DataError(
                f"{self.folder}: is there already; remove it, or choose another with --out"
            )

    def register(self, *, adapts: str) -> Registry:
        """Add it to the file, and to its stores, in one edit; return the new registry.

        Raises:
            RegistryError: the file would no longer be valid; it is unchanged.
        """
        return add_expert(self.registry.path, self._spec(adapts), stores=self.stores)

    def _spec(self, adapts: str) -> Mapping[str, Any]:
        base = self._written()
        folder = os.path.relpath(self.folder.absolute(), self.registry.path.absolute().parent)
        options = {
            **base.get("options", {}), "adapter": f"path:{folder}", "adapts": adapts,
        }  # fmt: skip
        return {
            "name": self.name,
            "kind": "retriever",
            "backend": base["backend"],
            "model": base["model"],
            **{key: base[key] for key in _INHERITED if key in base},
            **({"domains": list(self.domains)} if self.domains else {}),
            "options": options,
        }

    def _written(self) -> dict[str, Any]:
        """Return the base as its author wrote it: with paths relative to the file."""
        path = self.registry.path
        now = Registry.load(path)  # it may have been edited while the training ran
        if self.base not in now.retrievers:
            raise unknown_name("retriever", self.base, now.retrievers)
        experts = parse_yaml(read_text(path), str(path)).data["experts"]
        found: dict[str, Any] = next(e for e in experts if e["name"] == self.base)
        return found
