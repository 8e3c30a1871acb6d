"""What a call costs beyond the expert itself: an echo expert, which answers in microseconds.

    python benchmarks/call_overhead.py [--calls 300]

Prints the median milliseconds of one call at a time and the ratio to the line it is built on.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from composer import Composer
from composer.opening import open_embedder, open_llm
from composer.ray_dispatch import RayDispatcher
from composer.training import train
from experts_registry import Prompt, Registry
from routers.building import build_router
from routers.testing import synthetic_outcomes

REGISTRY = """
version: 1
experts:
  - {name: expert-0, kind: llm, backend: echo, model: echo, resources: {cpus: 0.1}}
  - {name: expert-1, kind: llm, backend: echo, model: echo, resources: {cpus: 0.1}}
  - {name: words, kind: retriever, backend: hashing, model: hashing}
compositions:
  - {name: auto, experts: [expert-0, expert-1], router: router}
"""
ROUNDS = 10  # the lines take turns, so that a slow moment of the machine hits all of them
QUESTION = "Which of these is the better word for a small boat?"


@ray.remote
class Bare:
    """The least that a Ray actor can do."""

    async def echo(self, text: str) -> str:
        """Return the text."""
        return text


async def times_of(call: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """Return the milliseconds of single calls, one after another."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - began))
    return times


def registry_in(folder: Path) -> Registry:
    """Write the registry and train its router."""
    (folder / "experts.yaml").write_text(REGISTRY)
    registry = Registry.load(folder / "experts.yaml")
    data = synthetic_outcomes(experts=2)
    assert registry.encoder is not None
    train(build_router("category", open_embedder(registry.encoder), {}), data, folder / "router")
    return registry


async def run(folder: Path, calls: int) -> None:
    """Measure every line."""
    registry = registry_in(folder)
    prompt = Prompt.of(QUESTION)
    backend = open_llm(registry.expert("expert-0"))
    workers = RayDispatcher(registry.llms)
    bare = Bare.options(num_cpus=0.1).remote()
    async with Composer(registry) as local, Composer(registry, dispatcher=workers) as remote:
        lines: list[tuple[str, str, Callable[[], Awaitable[object]]]] = [
            ("backend", "", lambda: backend.generate(prompt)),
            ("composer, by name", "backend", lambda: local.aquery(QUESTION, model="expert-0")),
            ("composer, routed", "backend", lambda: local.aquery(QUESTION)),
            ("bare Ray actor", "", lambda: bare.echo.remote(QUESTION)),
            ("worker", "bare Ray actor", lambda: workers.generate("expert-0", prompt)),
            ("composer, worker, routed", "bare Ray actor", lambda: remote.aquery(QUESTION)),
        ]
        took: dict[str, list[float]] = {name: [] for name, _, _ in lines}
        for turn in range(ROUNDS + 1):
            for name, _, call in lines:
                times = await times_of(call, calls // ROUNDS)
                took[name] += times if turn else []  # the first round warms up
        median = {name: statistics.median(times) for name, times in took.items()}
        for name, base, _ in lines:
            ratio = f"  {median[name] / median[base]:6.1f} x {base}" if base else ""
            print(f"{name:<26} {median[name]:7.3f} ms{ratio}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    calls = parser.parse_args().calls
    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), calls))


if __name__ == "__main__":
    main()
