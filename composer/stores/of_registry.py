"""Build the stores of a registry, and say how they stand."""

from composer.opened import Opened
from composer.stores.building import Built, Retriever, Steps, build
from composer.stores.embedding import here
from composer.stores.gathering import Change
from experts_registry.registry import Registry

__all__ = ["build_store"]


def build_store(
    registry: Registry, name: str, change: Change, *, workers: bool, steps: Steps
) -> Built:
    """Build a store of an expert file; see `build`.

    Args:
        registry: the expert file.
        name: of the store.
        change: what is asked for besides reading its source again.
        workers: embed on Ray, where a retriever reserves a CPU or a GPU.
        steps: shows how far it is.

    Raises:
        UnknownNameError: there is no such store.
    """
    spec = registry.store(name)
    opened = Opened(registry)
    try:
        return build(
            spec,
            registry.resolve(spec.passages),
            registry.store_folder(name),
            [_retriever(registry, opened, one, workers) for one in spec.retrievers],
            change=change,
            steps=steps,
        )
    finally:
        opened.close()


def _retriever(registry: Registry, opened: Opened, name: str, workers: bool) -> Retriever:
    embedder, spec = opened.embedder(name), registry.retrievers[name]
    if workers and (spec.resources.cpus or spec.resources.gpus):
        from composer.stores.embedding_workers import on_workers

        return Retriever(name, embedder, on_workers(spec))
    return Retriever(name, embedder, here(embedder))
