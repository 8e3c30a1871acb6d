"""Show how long work takes: bars on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from composer.tally import OnProgress, Tally

__all__ = ["progress", "steps"]

_LINE_SECONDS = 10.0


@contextmanager
def progress(*, quiet: bool = False, console: Console | None = None) -> Iterator[OnProgress]:
    """Yield what `collect` calls after each cell; it writes to standard error.

    Args:
        quiet: show nothing.
        console: where to write instead.
    """
    console = console or Console(stderr=True)
    if quiet:
        yield lambda expert, tally: None
    elif console.is_terminal:
        with _bars(console) as shown:
            yield _Bars(shown)
    else:
        yield _Lines(console)


@contextmanager
def steps(
    total: int, what: str, *, quiet: bool = False, console: Console | None = None
) -> Iterator[Callable[[str], None]]:
    """Yield what is called, with a name, after each of ``total`` steps; writes to standard error.

    Args:
        total: number of steps.
        what: they are, for example ``fits``.
        quiet: show nothing.
        console: where to write instead.
    """
    console = console or Console(stderr=True)
    if quiet or total <= 0:
        yield lambda name: None
    elif console.is_terminal:
        with _bars(console) as shown:
            task = shown.add_task(what, total=total, speed="", note="")
            yield lambda name: shown.update(task, advance=1, note=name)
    else:
        yield _StepLines(console, total, what)


class _StepLines:
    """A line when time has passed: how many steps are done, and how long the rest will take."""

    def __init__(self, console: Console, total: int, what: str) -> None:
        self._console, self._total, self._what, self._done = console, total, what, 0
        self._began = self._told = time.monotonic()

    def __call__(self, name: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._told > _LINE_SECONDS and self._done < self._total:
            self._told = now
            left = (now - self._began) / self._done * (self._total - self._done)
            line = f"{self._what}: {self._done}/{self._total} {name} ({left:.0f} s left)"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class _Pace:
    """Cells per second of this run, not counting those that an earlier one finished."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, tally: Tally) -> float:
        return (tally.done - tally.kept) / max(time.monotonic() - self._began, 1e-9)


class _Bars:
    """One bar per expert."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._pace = _Pace()
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, expert: str, tally: Tally) -> None:
        note, speed = _note(tally), f"{self._pace(tally):.1f}/s"
        if expert not in self._tasks:
            self._tasks[expert] = self._shown.add_task(
                expert, total=tally.total, completed=tally.done, note=note, speed=speed
            )
        self._shown.update(self._tasks[expert], completed=tally.done, note=note, speed=speed)


class _Lines:
    """A line when time has passed, and one when the last cell is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = _Pace()
        self._tallies: dict[str, Tally] = {}
        self._told = time.monotonic()

    def __call__(self, expert: str, tally: Tally) -> None:
        self._tallies[expert] = tally
        is_due = time.monotonic() - self._told > _LINE_SECONDS
        if is_due or all(t.done == t.total or t.given_up for t in self._tallies.values()):
            self._told = time.monotonic()
            self._console.print(self._line(), highlight=False, soft_wrap=True, markup=False)

    def _line(self) -> str:
        parts = (f"{n} {t.done}/{t.total} {_note(t)}" for n, t in self._tallies.items())
        pace = sum(map(self._pace, self._tallies.values()))
        left = sum(t.total - t.done for t in self._tallies.values() if not t.given_up)
        speed = f" ({pace:.1f} cells/s" if pace else ""
        eta = f", {left / pace:.0f} s left" if pace and left else ""
        return f"collect: {'; '.join(parts)}{speed}{eta}{')' if speed else ''}"


def _note(tally: Tally) -> str:
    if tally.given_up:
        return "given up"
    quality = "" if tally.mean_quality is None else f"quality {tally.mean_quality:.2f}"
    failed = f"{tally.failed} failed" if tally.failed else ""
    return ", ".join(filter(None, (quality, failed)))
