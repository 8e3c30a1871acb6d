"""Load the pilot router of a store with the retriever that it reads queries with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from experts_registry.errors import ArtefactError
from experts_registry.registry import Registry
from experts_registry.types import Embedder
from routers.artefact import read_artefact
from routers.base import Router, load_router

__all__ = ["load_pilots"]


def load_pilots(folder: Path, registry: Registry, embedder: Callable[[str], Embedder]) -> Router:
    """Return a saved router; its encoder is whichever retriever of the file it was trained with.

    Args:
        folder: holds it.
        registry: names the retrievers; the file's encoder is looked at first.
        embedder: opens one by its name.

    Raises:
        ArtefactError: it is damaged, or none of the retrievers is its encoder.
    """
    wanted = read_artefact(folder)[0].get("lineage", {}).get("encoder")
    first = registry.encoder
    names: Sequence[str] = [*registry.retrievers]
    for name in dict.fromkeys([first.name, *names] if first else names):
        if (encoder := embedder(name)).digest == wanted:
            return load_router(folder, encoder=encoder)
    raise ArtefactError(
        f"{folder}: reads queries by encoder {str(wanted)[:12]}, which none of "
        f"{', '.join(names)} is; register that encoder, or train the pilots again"
    )
