"""Embed passages on Ray: a worker per replica of a retriever; a dead one's batch is redone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from composer.ray_dispatch import RayDispatcher
from composer.stores.embedding import Batch, Embedding
from experts_registry.schema import ExpertSpec
from experts_registry.types import FloatArray

__all__ = ["on_workers"]

_WAITING = 2  # batches per worker, so that none waits for its next one


def on_workers(spec: ExpertSpec) -> Embedding:
    """Embed with the replicas of a retriever, each in a process of its own.

    Raises:
        CapacityError: the cluster cannot host them.
        ExpertUnavailableError: a worker died and did not come back.
    """

    @contextmanager
    def embedded(batches: Iterator[Batch]) -> Iterator[Iterator[tuple[Batch, FloatArray]]]:
        dispatcher = RayDispatcher({spec.name: spec})
        with asyncio.Runner() as runner:
            try:
                yield _results(dispatcher, spec, batches, runner)
            finally:
                runner.run(dispatcher.aclose())

    return embedded


def _results(
    dispatcher: RayDispatcher, spec: ExpertSpec, batches: Iterator[Batch], runner: asyncio.Runner
) -> Iterator[tuple[Batch, FloatArray]]:
    loop, width = runner.get_loop(), _WAITING * spec.resources.replicas
    flying: dict[asyncio.Task[FloatArray], Batch] = {}
    try:
        while True:
            while len(flying) < width and (batch := next(batches, None)) is not None:
                asked = dispatcher.embed(spec.name, batch.texts)
                flying[loop.create_task(asked)] = batch
            if not flying:
                return
            done, _ = runner.run(asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED))
            for task in done:
                yield flying.pop(task), task.result()
    finally:
        for task in flying:
            task.cancel()
