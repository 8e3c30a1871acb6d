"""Ask every expert every query, grade the answers, keep what is finished.

A cell is a (query, expert) pair; `composer.cells` says when it is finished. Finished cells are
not asked again; where only the grading changed, the recorded response is graded anew; where only
a price changed, the recorded tokens are priced anew.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from composer.cells import Row, answered, digest_of, failed, has_answer, is_finished, refreshed
from composer.graders import grade
from composer.journal import Journal
from composer.queries import Query
from composer.retries import Retries
from composer.tally import Collected, OnProgress, Tally
from experts_registry.errors import (
    CapacityError,
    ComposerError,
    DataError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertUnavailableError,
    ModelSourceError,
    OptionError,
    PluginError,
    RegistryError,
)
from experts_registry.schema import ExpertSpec
from experts_registry.types import Generation, Prompt

__all__ = ["Call", "Collected", "Column", "OnProgress", "Tally", "collect", "collect_columns"]

logger = logging.getLogger(__name__)

_HOPELESS_AFTER = 5  # first calls that all fail for a reason that the next one shares
_GIVEN_UP = "expert %r: the first %d calls failed, so it is not asked any more: %s"
_HOPELESS = (
    CapacityError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertUnavailableError,
    ModelSourceError,
    OptionError,
    PluginError,
    RegistryError,
)

Call = Callable[[str, Prompt], Awaitable[Generation]]


class Column(NamedTuple):
    """Whom to ask, under the name that the outcomes get, and what."""

    spec: ExpertSpec
    queries: Sequence[Query]


async def collect(
    queries: Sequence[Query],
    experts: Mapping[str, ExpertSpec],
    call: Call,
    out: Path,
    *,
    concurrency: int = 8,
    on_progress: OnProgress | None = None,
) -> Collected:
    """Fill the cells of these queries and experts; rows of others stay as they are.

    A call that fails leaves a cell without quality, which the next run asks again. Of changed
    cells the old row stays until a new one is graded. All experts are asked at once and in the
    same order, short answers first, so a run that is cut short covers the experts evenly.

    Args:
        queries: what to ask.
        experts: whom to ask.
        call: asks one expert; several calls per expert are in flight.
        out: Parquet file of outcomes, made or extended.
        concurrency: calls in flight per expert; its own ``limits.concurrency`` may lower it.
        on_progress: told an expert's name and tally whenever one of its cells is done.

    Raises:
        DataError: the file cannot be read or written, or another process writes to it.
    """
    columns = [Column(spec, queries) for spec in experts.values()]
    return await collect_columns(
        columns, call, out, concurrency=concurrency, on_progress=on_progress
    )


async def collect_columns(
    columns: Sequence[Column],
    call: Call,
    out: Path,
    *,
    concurrency: int = 8,
    on_progress: OnProgress | None = None,
) -> Collected:
    """Fill columns of outcomes, each with queries of its own; see `collect`."""
    if concurrency < 1:
        raise OptionError(f"concurrency: {concurrency} is below 1; use 1 or more")
    if not columns or not all(column.queries for column in columns):
        what = "queries" if columns else "experts"
        raise DataError(f"collect: there are no {what} to collect from; name at least one")
    began = time.monotonic()
    with (
        Journal.opened(Path(out)) as journal,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
        _sigterm_is_graceful(),
    ):
        run = _Run(journal, call, pool, on_progress or (lambda expert, tally: None))
        await run.all(columns, concurrency)
    return Collected.of(run.tallies, time.monotonic() - began)


class _Run:
    """One run: the journal it fills, and how far each expert is."""

    def __init__(
        self, journal: Journal, call: Call, pool: ThreadPoolExecutor, on_progress: OnProgress
    ) -> None:
        self.journal = journal
        self.call = call
        self.pool = pool
        self.on_progress = on_progress
        self.tallies: dict[str, Tally] = {}
        self.retries: dict[str, Retries] = {}

    async def all(self, columns: Sequence[Column], concurrency: int) -> None:
        """Fill every cell: each column has its own workers, which share its queries."""
        self.retries = {spec.name: Retries(spec.limits) for spec, _ in columns}
        try:
            async with asyncio.TaskGroup() as group:
                for spec, queries in columns:
                    todo = iter(self._unfinished(sorted(queries, key=_turn), spec))
                    width = min(concurrency, spec.limits.concurrency or concurrency)
                    for _ in range(width):
                        group.create_task(self._work(todo, spec))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _unfinished(self, queries: Sequence[Query], spec: ExpertSpec) -> list[Query]:
        """Return what is left to do; refresh the rows of what is not."""
        tally = Tally(total=len(queries))
        todo = []
        for query in queries:
            row = self._row(query, spec)
            if is_finished(row, query, spec):
                self.journal.rows[query.id, spec.name] = refreshed(row, query, spec)
                tally = replace(tally.with_cell(row["quality"]), kept=tally.kept + 1)
            else:
                todo.append(query)
        self._tell(spec.name, tally)
        return todo

    async def _work(self, todo: Iterator[Query], spec: ExpertSpec) -> None:
        for query in todo:
            if self.tallies[spec.name].given_up:
                return
            row = self._row(query, spec)
            if has_answer(row, query, spec):
                await self._regrade(query, spec, row)
            else:
                await self._ask(query, spec)

    def _row(self, query: Query, spec: ExpertSpec) -> Row:
        return self.journal.rows.get((query.id, spec.name), {})

    async def _regrade(self, query: Query, spec: ExpertSpec, old: Row) -> None:
        row = await self._graded(refreshed(old, query, spec), query)
        self.journal.add(row)
        tally = self.tallies[spec.name].with_cell(row["quality"])
        self._tell(spec.name, replace(tally, regraded=tally.regraded + 1))

    async def _ask(self, query: Query, spec: ExpertSpec) -> None:
        began = time.perf_counter()
        if query.retrieved is not None:  # passages take as long to find as they took
            began -= query.retrieved.seconds
        failure: ComposerError | None = None
        try:
            generation = await self._answer(query, spec)
        except ComposerError as error:
            failure = error
            row = failed(query, spec, _told(error), time.perf_counter() - began)
        else:
            row = answered(query, spec, generation, time.perf_counter() - began)
            row = await self._graded(row, query)
        self.journal.add(row)
        tally = self.tallies[spec.name].with_cell(row["quality"])
        cost = tally.cost_usd + (row["cost_usd"] or 0.0)
        tally = replace(tally, asked=tally.asked + 1, cost_usd=cost)
        if failure is not None:
            tally = replace(tally, error=tally.error or _told(failure))
        if isinstance(failure, _HOPELESS) and tally.asked == tally.failed == _HOPELESS_AFTER:
            tally = replace(tally, given_up=_told(failure))
            logger.error(_GIVEN_UP, spec.name, _HOPELESS_AFTER, failure)
        self._tell(spec.name, tally)

    async def _answer(self, query: Query, spec: ExpertSpec) -> Generation:
        """Ask, and ask again where that may help."""
        retries, tries = self.retries[spec.name], 0
        while True:
            retries.earn()
            try:
                return await self.call(spec.name, query.asked)
            except ComposerError as error:
                tries += 1
                if (wait := retries.wait(error, tries, None)) is None:
                    raise
            await asyncio.sleep(wait)

    async def _graded(self, row: Row, query: Query) -> Row:
        """Grade off the event loop: code runs for seconds, and calls go on meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            quality = await loop.run_in_executor(self.pool, grade, query.grader, row["response"])
        except ComposerError as error:
            return row | {"quality": None, "error": _told(error)}
        return row | {"quality": quality, "error": None}

    def _tell(self, expert: str, tally: Tally) -> None:
        self.tallies[expert] = tally
        self.on_progress(expert, tally)


def _turn(query: Query) -> tuple[int, str]:
    """Order queries: a batch takes as long as its longest answer, so like go with like."""
    return query.prompt.sampling.max_tokens or 0, digest_of(query.id)


def _told(error: ComposerError) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _sigterm_is_graceful() -> Iterator[None]:
    """Turn SIGTERM into a cancellation, as asyncio does with Ctrl-C, and then into an exit."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[int] = []

    def stop() -> None:
        came.append(signal.SIGTERM)
        if task is not None:
            task.cancel()

    previous = signal.getsignal(signal.SIGTERM)
    try:
        loop.add_signal_handler(signal.SIGTERM, stop)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if came:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, previous)
