"""Run experts on Ray workers: one named, restartable actor per replica."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn
from uuid import uuid4

# Before ray is imported: it reads these once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a stray handle must not start a cluster
os.environ.setdefault("RAY_worker_niceness", "0")  # people wait for experts; Ray's default is 15

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from composer import ray_cluster
from composer.dispatch import LocalDispatcher, deadline, timed
from composer.status import Tier
from experts_registry.errors import ComposerError, ExpertUnavailableError, unknown_name
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, Generation, Prompt

__all__ = ["RayDispatcher"]

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.03  # an item costs Ray about a millisecond: send a few tokens at a time
IN_FLIGHT = 1000  # calls that an actor accepts at once; its backend batches or queues them
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

    Raises:
        CapacityError: the cluster cannot host the experts.
    """

    def __init__(self, experts: Mapping[str, ExpertSpec], *, attempts: int = 3) -> None:
        self.specs = dict(experts)
        self._attempts = attempts
        hosted = {n: s for n, s in self.specs.items() if s.resources.cpus or s.resources.gpus}
        self._here = LocalDispatcher({n: s for n, s in self.specs.items() if n not in hosted})
        self._is_closed = False
        self._must_leave = ray_cluster.join(hosted) if hosted else False
        self._replicas = {
            name: [_Replica(spec, i) for i in range(spec.resources.replicas)]
            for name, spec in hosted.items()
        }

    async def generate(self, expert: str, prompt: Prompt) -> Generation:
        """Answer a prompt with one expert; ask again where its worker dies."""
        if (spec := self._spec(expert)).name not in self._replicas:
            return await self._here.generate(expert, prompt)
        async with deadline(f"expert {expert!r}", spec.limits.seconds):
            result: Generation = await self._call(expert, "generate", prompt)
        return result

    async def stream(self, expert: str, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer piece by piece; ask again where the worker dies before the first piece."""
        if (spec := self._spec(expert)).name not in self._replicas:
            source = self._here.stream(expert, prompt)
        else:
            source = timed(self._stream(expert, prompt), f"expert {expert!r}", spec.limits.seconds)
        async with aclosing(source) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def load(self, expert: str) -> None:
        """Load an expert on every replica."""
        self._spec(expert)
        if expert not in self._replicas:
            return await self._here.load(expert)
        replicas = self._replicas[expert]
        await asyncio.gather(*(self._call(expert, "load", replica=r) for r in replicas))
        return None

    async def detokenize(self, expert: str, tokens: Sequence[int]) -> str:
        """Return the text that tokens of an expert stand for."""
        self._spec(expert)
        if expert not in self._replicas:
            return await self._here.detokenize(expert, tokens)
        text: str = await self._call(expert, "detokenize", tokens)
        return text

    def tier(self, expert: str) -> Tier:
        """Say where an expert's weights are: of one on a worker, what it reserves says so."""
        spec = self._spec(expert)
        if expert not in self._replicas:
            return self._here.tier(expert)
        return "device" if spec.resources.gpus else "host"

    async def pids(self, expert: str) -> list[int]:
        """Return the process ids of an expert's workers."""
        self._spec(expert)
        replicas = self._replicas.get(expert, [])
        return [await self._ask(replica, "pid", ()) for replica in replicas]

    async def aclose(self) -> None:
        """Stop the workers, and the cluster where nobody else in this process uses it."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._here.aclose()
        replicas = [replica for group in self._replicas.values() for replica in group]
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

    def _pick(self, expert: str) -> "_Replica":
        """Choose the replica with the fewest calls in flight."""
        self._require_open(expert)
        return min(self._replicas[expert], key=lambda r: r.in_flight)

    def _require_open(self, expert: str) -> None:
        if self._is_closed:
            raise ExpertUnavailableError(
                f"expert {expert!r}: the dispatcher is closed; make a new one"
            )

    async def _call(
        self, expert: str, method: str, *args: Any, replica: "_Replica | None" = None
    ) -> Any:
        attempt = 1
        while True:
            chosen = replica or self._pick(expert)
            try:
                return await self._ask(chosen, method, args)
            except RayActorError as error:
                await self._after_death(chosen, attempt, error)
            attempt += 1

    async def _ask(self, replica: "_Replica", method: str, args: tuple[Any, ...]) -> Any:
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

    async def _relay(self, replica: "_Replica", prompt: Prompt) -> AsyncIterator[Chunk]:
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

    async def _after_death(self, replica: "_Replica", attempt: int, error: RayActorError) -> None:
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


class _Replica:
    """A handle on one actor, and how many calls it is answering."""

    def __init__(self, spec: ExpertSpec, index: int) -> None:
        self.spec = spec
        self.in_flight = 0
        resources = spec.resources
        self.actor = _ExpertActor.options(  # type: ignore[attr-defined]
            # Two dispatchers may run the same expert on one cluster.
            name=f"{spec.name}#{index}@{uuid4().hex[:8]}",
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            memory=int(resources.memory_gb * 2**30) or None,
            max_restarts=-1,
            # We ask again ourselves: Ray would do so even after part of an answer was passed on.
            max_task_retries=0,
            max_concurrency=IN_FLIGHT,
        ).remote(spec)

    def __enter__(self) -> None:
        self.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1


@ray.remote
class _ExpertActor:
    """One expert in a process of its own.

    Errors of our tree are returned, not raised: Ray would wrap them in a traceback.
    """

    def __init__(self, spec: ExpertSpec) -> None:
        self._name = spec.name
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

    async def generate(self, prompt: Prompt) -> Generation | ComposerError:
        try:
            return await self._local.generate(self._name, prompt)
        except ComposerError as error:
            return error

    async def stream(self, prompt: Prompt) -> AsyncIterator[Chunk | ComposerError]:
        pending, flushed = "", time.monotonic()
        try:
            async for chunk in self._local.stream(self._name, prompt):
                if chunk != Chunk(chunk.text):  # more than text
                    if pending:
                        yield Chunk(pending)
                    pending = ""
                    yield chunk
                    continue
                pending += chunk.text
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    yield Chunk(pending)
                    pending, flushed = "", time.monotonic()
        except ComposerError as error:
            yield error


def _raise_if_error(result: Any) -> Any:
    if isinstance(result, ComposerError):
        raise result
    return result


def _unavailable(expert: str, error: RayError, when: str = "and did not come back") -> NoReturn:
    cause = " ".join(str(error).split())[:300]
    raise ExpertUnavailableError(f"expert {expert!r}: its worker died {when} ({cause})") from error
