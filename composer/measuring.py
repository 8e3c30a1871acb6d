"""Run a collection over a registry: query file in, outcomes out, experts on workers or here."""

from collections.abc import Sequence
from pathlib import Path

from composer.collect import Collected, collect
from composer.dispatch import Dispatcher, LocalDispatcher
from composer.progress import progress
from composer.queries import read_queries
from experts_registry.errors import unknown_name
from experts_registry.registry import Registry

__all__ = ["measure"]


async def measure(
    registry: Path,
    queries: Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    workers: bool = True,
    concurrency: int = 8,
    quiet: bool = False,
) -> Collected:
    """Ask every LLM of a registry every query of a file and grade the answers.

    Args:
        registry: the expert file.
        queries: the query file.
        out: the Parquet file of outcomes; its finished cells are kept.
        only: names of the experts to ask; by default all that are enabled.
        workers: run experts on Ray workers instead of in this process.
        concurrency: calls in flight per expert.
        quiet: show no progress.
    """
    file = Registry.load(registry)
    if missing := [name for name in only if name not in file.llms]:
        raise unknown_name("expert", missing[0], file.llms)
    experts = {name: spec for name, spec in file.llms.items() if not only or name in only}
    asked = read_queries(queries)
    dispatcher: Dispatcher
    if workers:
        from composer.ray_dispatch import RayDispatcher

        dispatcher = RayDispatcher(experts)
    else:
        dispatcher = LocalDispatcher(experts)
    try:
        with progress(quiet=quiet) as on_progress:
            return await collect(
                asked, experts, dispatcher.generate, out,
                concurrency=concurrency, on_progress=on_progress,
            )  # fmt: skip
    finally:
        await dispatcher.aclose()
