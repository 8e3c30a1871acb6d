"""Show how a collection goes: bars on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Iterator
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

__all__ = ["progress"]

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
