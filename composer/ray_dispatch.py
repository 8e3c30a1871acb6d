"""Run experts on Ray workers: one named, restartable actor per replica."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

# Before ray is imported: it reads these once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a stray handle must not start a cluster
os.environ.setdefault("RAY_worker_niceness", "0")  # people wait for experts; Ray's default is 15

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from composer import ray_cluster
from composer.deadlines import deadline, timed
from composer.dispatch import LocalDispatcher
from composer.ray_worker import Crew, Replica
from composer.status import Tier
from experts_registry.errors import ComposerError, ExpertUnavailableError, unknown_name
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, FloatArray, Generation, Prompt

__all__ = ["RayDispatcher"]

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # how long closing waits for calls in flight to end
RESTART_SECONDS = 120.0  # how long a call waits for its worker to come back ...
DEAD_SECONDS = 5.0  # ... and how long where Ray says that it will not


class RayDispatcher:
    """Runs each replica of an expert in its own Ray actor.

    A killed worker is restarted by Ray; the calls it was answering are asked again, unless part
    of the answer was already passed on. Experts that reserve no CPU and no GPU (remote servers)
    are called from this process: a hop would buy nothing.

    Args:
        experts: whom to run.
        attempts: how often a call is asked, its first time included.
        before: the dispatcher of an older edition, which is still open; the workers of experts
            that did not change are shared, and stopped by whichever of the two closes last.

    Raises:
        CapacityError: the cluster cannot host the experts that are new or changed.
    """

    def __init__(
        self,
        experts: Mapping[str, ExpertSpec],
        *,
        attempts: int = 3,
        before: "RayDispatcher | None" = None,
    ) -> None:
        self.specs = dict(experts)
        self._attempts = attempts
        hosted = {n: s for n, s in self.specs.items() if s.resources.cpus or s.resources.gpus}
        new = before._lacking(hosted) if before is not None else hosted
        self._must_leave = ray_cluster.join(new) if hosted else False
        self._crews = before._lend(hosted) if before is not None else {}
        is_counted = not ray_cluster.is_alone()
        self._crews |= {name: Crew.of(spec, is_counted=is_counted) for name, spec in new.items()}
        here = {n: s for n, s in self.specs.items() if n not in hosted}
        older = before._here if before is not None else None
        self._here: LocalDispatcher = LocalDispatcher(here, before=older)
        self._is_closed = False

    async def generate(self, expert: str, prompt: Prompt) -> Generation:
        """Answer a prompt with one expert; ask again where its worker dies."""
        if (spec := self._spec(expert)).name not in self._crews:
            return await self._here.generate(expert, prompt)
        async with deadline(f"expert {expert!r}", spec.limits.seconds):
            result: Generation = await self._call(expert, "generate", prompt)
        return result

    async def stream(self, expert: str, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer piece by piece; ask again where the worker dies before the first piece."""
        if (spec := self._spec(expert)).name not in self._crews:
            source = self._here.stream(expert, prompt)
        else:
            source = timed(self._stream(expert, prompt), f"expert {expert!r}", spec.limits.seconds)
        async with aclosing(source) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def load(self, expert: str) -> None:
        """Load an expert on every replica."""
        self._spec(expert)
        if expert not in self._crews:
            return await self._here.load(expert)
        replicas = self._crews[expert].replicas
        await asyncio.gather(*(self._call(expert, "load", replica=r) for r in replicas))
        return None

    async def detokenize(self, expert: str, tokens: Sequence[int]) -> str:
        """Return the text that tokens of an expert stand for."""
        self._spec(expert)
        if expert not in self._crews:
            return await self._here.detokenize(expert, tokens)
        text: str = await self._call(expert, "detokenize", tokens)
        return text

    async def embed(self, expert: str, texts: Sequence[str]) -> FloatArray:
        """Embed passages with a retriever that has workers; again where its worker dies."""
        self._spec(expert)
        x: FloatArray = await self._call(expert, "embed", texts)
        return x

    def tier(self, expert: str) -> Tier:
        """Say where an expert's weights are: of one on a worker, what it reserves says so."""
        spec = self._spec(expert)
        if expert not in self._crews:
            return self._here.tier(expert)
        return "device" if spec.resources.gpus else "host"

    async def pids(self, expert: str) -> list[int]:
        """Return the process ids of an expert's workers."""
        self._spec(expert)
        replicas = self._crews[expert].replicas if expert in self._crews else []
        return [await self._ask(replica, "pid", ()) for replica in replicas]

    async def aclose(self) -> None:
        """Stop the workers that nobody shares, and the cluster with its last user here."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._here.aclose()
        mine = [crew for crew in self._crews.values() if crew.is_free_without_me()]
        replicas = [replica for crew in mine for replica in crew.replicas]
        for replica in replicas:
            ray.kill(replica.actor)
        # Their calls end with an error first: without a cluster they would end the process.
        end = time.monotonic() + CLOSE_SECONDS
        while any(replica.in_flight for replica in replicas) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if self._must_leave:
            await asyncio.to_thread(ray_cluster.leave)

    # -- inside ---------------------------------------------------------------------------------

    def _spec(self, expert: str) -> ExpertSpec:
        try:
            return self.specs[expert]
        except KeyError:
            raise unknown_name("expert", expert, self.specs) from None

    def _lacking(self, hosted: Mapping[str, ExpertSpec]) -> dict[str, ExpertSpec]:
        """Return the experts of another edition that no worker here could answer for."""
        return {n: s for n, s in hosted.items() if n not in self._crews or self.specs[n] != s}

    def _lend(self, hosted: Mapping[str, ExpertSpec]) -> dict[str, Crew]:
        lacking = self._lacking(hosted)
        same = {n: crew for n, crew in self._crews.items() if n in hosted and n not in lacking}
        for crew in same.values():
            crew.take()
        return same

    def _pick(self, expert: str) -> Replica:
        """Choose the replica with the fewest calls in flight."""
        self._require_open(expert)
        return min(self._crews[expert].replicas, key=lambda r: r.in_flight)

    def _require_open(self, expert: str) -> None:
        if self._is_closed:
            raise ExpertUnavailableError(
                f"expert {expert!r}: the dispatcher is closed; make a new one"
            )

    async def _call(
        self, expert: str, method: str, *args: Any, replica: Replica | None = None
    ) -> Any:
        attempt = 1
        while True:
            chosen = replica or self._pick(expert)
            try:
                return await self._ask(chosen, method, args)
            except RayActorError as error:
                await self._after_death(chosen, attempt, error)
            attempt += 1

    async def _ask(self, replica: Replica, method: str, args: tuple[Any, ...]) -> Any:
        with replica:
            reference = getattr(replica.actor, method).remote(*args)
            try:
                result = await reference
            except asyncio.CancelledError:
                ray.cancel(reference)
                raise
            except RayActorError:
                raise
            except RayError as error:
                _unavailable(replica.spec.name, error, "or failed")
        return _raise_if_error(result)

    async def _stream(self, expert: str, prompt: Prompt) -> AsyncIterator[Chunk]:
        attempt, is_begun = 1, False
        while True:
            replica = self._pick(expert)
            try:
                async for chunk in self._relay(replica, prompt):
                    is_begun = True
                    yield chunk
            except RayActorError as error:
                if is_begun:
                    _unavailable(expert, error, "in the middle of the answer; ask again")
                await self._after_death(replica, attempt, error)
            else:
                return
            attempt += 1

    async def _relay(self, replica: Replica, prompt: Prompt) -> AsyncIterator[Chunk]:
        with replica:
            references = replica.actor.stream.options(num_returns="streaming").remote(prompt)
            is_done = False
            try:
                async for reference in references:
                    yield _raise_if_error(await reference)
                is_done = True
            finally:
                if not is_done:
                    ray.cancel(references)

    async def _after_death(self, replica: Replica, attempt: int, error: RayActorError) -> None:
        """Wait for Ray to restart the worker, or give up."""
        expert = replica.spec.name
        self._require_open(expert)
        if attempt >= self._attempts:
            _unavailable(expert, error)
        logger.warning(
            "expert %s: its worker died (%s); restarting it and asking again, attempt %d of %d",
            expert, type(error).__name__, attempt + 1, self._attempts,
        )  # fmt: skip
        began = time.monotonic()
        while True:
            self._require_open(expert)
            try:
                await replica.actor.pid.remote()
            except RayActorError as again:
                # Unavailable: on its way back. Died: its constructor failed, or it was removed.
                wait = DEAD_SECONDS if isinstance(again, ActorDiedError) else RESTART_SECONDS
                if time.monotonic() - began > wait:
                    _unavailable(expert, again)
                await asyncio.sleep(0.2)
            else:
                return


def _raise_if_error(result: Any) -> Any:
    if isinstance(result, ComposerError):
        raise result
    return result


def _unavailable(expert: str, error: RayError, when: str = "and did not come back") -> NoReturn:
    cause = " ".join(str(error).split())[:300]
    raise ExpertUnavailableError(f"expert {expert!r}: its worker died {when} ({cause})") from error
