"""The actor that runs one replica of an expert, and the handle that dispatchers keep on it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

import ray

from composer.coalescing import coalesced
from composer.dispatch import LocalDispatcher
from composer.opening import open_embedder
from composer.shared import Shared
from experts_registry.errors import ComposerError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, Embedder, FloatArray, Generation, Prompt

__all__ = ["Crew", "Replica"]

FLUSH_SECONDS = 0.03  # an item costs Ray about a millisecond: send a few tokens at a time
IN_FLIGHT = 1000  # calls that an actor accepts at once; its backend batches or queues them


@dataclass
class Crew(Shared):
    """The replicas of one expert."""

    replicas: list["Replica"]

    @classmethod
    def of(cls, spec: ExpertSpec, *, is_counted: bool) -> "Crew":
        """Start the replicas of an expert."""
        count = spec.resources.replicas
        return cls([Replica(spec, i, is_counted=is_counted) for i in range(count)])


class Replica:
    """A handle on one actor, and how many calls it is answering.

    Args:
        spec: the expert.
        index: which of its replicas.
        is_counted: reserve the expert's CPUs in the cluster. Where the cluster is this machine
            alone, they are not: experts share its cores, and an edition of the expert file can
            start beside the one that still serves.
    """

    def __init__(self, spec: ExpertSpec, index: int, *, is_counted: bool) -> None:
        self.spec = spec
        self.in_flight = 0
        resources = spec.resources
        threads = None if is_counted else max(1, int(resources.cpus))
        self.actor = _ExpertActor.options(  # type: ignore[attr-defined]
            # Two dispatchers may run the same expert on one cluster.
            name=f"{spec.name}#{index}@{uuid4().hex[:8]}",
            num_cpus=resources.cpus if is_counted else 0,
            num_gpus=resources.gpus,
            memory=int(resources.memory_gb * 2**30) or None,
            max_restarts=-1,
            # We ask again ourselves: Ray would do so even after part of an answer was passed on.
            max_task_retries=0,
            max_concurrency=IN_FLIGHT,
        ).remote(spec, None if "OMP_NUM_THREADS" in os.environ else threads)

    def __enter__(self) -> None:
        self.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1


@ray.remote
class _ExpertActor:
    """One expert in a process of its own.

    Errors of our tree are returned, not raised: Ray would wrap them in a traceback.
    """

    def __init__(self, spec: ExpertSpec, threads: int | None) -> None:
        if threads is not None:  # as Ray does for the CPUs that an actor reserves
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._spec, self._name = spec, spec.name
        self._embedder: Embedder | None = None
        self._lock = threading.Lock()
        self._local = LocalDispatcher({spec.name: spec})

    async def pid(self) -> int:
        return os.getpid()

    async def load(self) -> ComposerError | None:
        try:
            await self._local.load(self._name)
        except ComposerError as error:
            return error
        return None

    async def detokenize(self, tokens: Sequence[int]) -> str | ComposerError:
        try:
            return await self._local.detokenize(self._name, tokens)
        except ComposerError as error:
            return error

    async def embed(self, texts: Sequence[str]) -> FloatArray | ComposerError:
        try:
            return await asyncio.to_thread(self._embedded, texts)
        except ComposerError as error:
            return error

    def _embedded(self, texts: Sequence[str]) -> FloatArray:
        with self._lock:
            if self._embedder is None:
                self._embedder = open_embedder(self._spec)
        return self._embedder.embed(texts, role="passage")

    async def generate(self, prompt: Prompt) -> Generation | ComposerError:
        try:
            return await self._local.generate(self._name, prompt)
        except ComposerError as error:
            return error

    async def stream(self, prompt: Prompt) -> AsyncIterator[Chunk | ComposerError]:
        whole = self._local.stream(self._name, prompt)
        try:
            async with aclosing(coalesced(whole, FLUSH_SECONDS)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ComposerError as error:
            yield error
