"""Run a collection over a registry: query file in, outcomes out, experts on workers or here."""

from collections.abc import Sequence
from pathlib import Path

from composer.collect import Collected, Column, collect_columns
from composer.collecting_arms import arm_columns, asking_arms, search_all
from composer.dispatch import Dispatcher, LocalDispatcher
from composer.opened import Opened
from composer.progress import progress, steps
from composer.queries import Query, read_queries
from composer.stores.retrieved import Retrieved
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
    stores: Sequence[str] = (),
    k: int = 3,
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
        stores: ask each query also with passages of each of these.
        k: how many passages.
    """
    file = Registry.load(registry)
    if missing := [name for name in only if name not in file.llms]:
        raise unknown_name("expert", missing[0], file.llms)
    experts = {name: spec for name, spec in file.llms.items() if not only or name in only}
    asked = read_queries(queries)
    columns = [Column(spec, asked) for spec in experts.values()]
    if stores:
        columns = arm_columns(asked, experts, _searched(file, asked, stores, k, quiet))
    dispatcher: Dispatcher
    if workers:
        from composer.ray_dispatch import RayDispatcher

        dispatcher = RayDispatcher(experts)
    else:
        dispatcher = LocalDispatcher(experts)
    try:
        with progress(quiet=quiet) as on_progress:
            return await collect_columns(
                columns, asking_arms(dispatcher.generate), out,
                concurrency=concurrency, on_progress=on_progress,
            )  # fmt: skip
    finally:
        await dispatcher.aclose()


def _searched(
    file: Registry, queries: Sequence[Query], stores: Sequence[str], k: int, quiet: bool
) -> dict[str, dict[str, Retrieved]]:
    """Search each store for each query: by store and query id, what was found."""
    from composer.stores.searching import Searching

    for name in stores:
        file.store(name)  # raises where there is none
    opened = Opened(file)
    searching = Searching(file, opened)
    try:
        with steps(len(stores) * len(queries), "searches", quiet=quiet) as advance:
            return search_all(queries, stores, searching.search, k, advance)
    finally:
        opened.close()
