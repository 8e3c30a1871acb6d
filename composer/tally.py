"""How far a collection is, by expert, and what it came to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

__all__ = ["Collected", "OnProgress", "Tally"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How far one expert is.

    Args:
        total: cells of this run.
        kept: found finished in the file.
        asked: calls that ended, well or not.
        regraded: recorded responses that were graded anew.
        failed: cells without a quality so far.
        graded: cells with a quality, and their summed ``quality``.
        quality: see ``graded``.
        cost_usd: price of the calls of this run.
        given_up: why the expert is not asked any more, or an empty string.
        error: the first failure of this run, or an empty string.
    """

    total: int = 0
    kept: int = 0
    asked: int = 0
    regraded: int = 0
    failed: int = 0
    graded: int = 0
    quality: float = 0.0
    cost_usd: float = 0.0
    given_up: str = ""
    error: str = ""

    @property
    def done(self) -> int:
        """Cells that need no more work in this run."""
        return self.kept + self.asked + self.regraded

    @property
    def mean_quality(self) -> float | None:
        """Mean over the graded cells, if there is one."""
        return self.quality / self.graded if self.graded else None

    def with_cell(self, quality: float | None) -> "Tally":
        """Return this tally with one more cell."""
        if quality is None:
            return replace(self, failed=self.failed + 1)
        return replace(self, graded=self.graded + 1, quality=self.quality + quality)


OnProgress = Callable[[str, Tally], None]
"""Told an expert's name and tally whenever one of its cells is done."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a run did.

    Args:
        cells: queries times experts.
        asked: calls that were made and answered or failed.
        kept: cells that were finished before.
        regraded: recorded responses that were graded anew.
        failed: cells that have an error instead of a quality.
        missing: cells that were not asked because their expert was given up.
        cost_usd: price of the calls of this run.
        seconds: how long it took.
        quality: mean quality by expert.
        given_up: experts that failed from the start, and why.
        errors: the first failure of each expert that had one.
    """

    cells: int
    asked: int
    kept: int
    regraded: int
    failed: int
    missing: int
    cost_usd: float
    seconds: float
    quality: Mapping[str, float | None] = field(default_factory=dict)
    given_up: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ("asked", "kept", "regraded", "failed", "missing")
        parts = [f"{n} {name}" for name in counts if (n := getattr(self, name))]
        given_up = f"; given up: {', '.join(self.given_up)}" if self.given_up else ""
        return (
            f"{self.cells} cells ({', '.join(parts) or 'none'}), "
            f"{self.cost_usd:.6g} USD, {self.seconds:.0f} s{given_up}"
        )

    @classmethod
    def of(cls, tallies: Mapping[str, Tally], seconds: float) -> Self:
        """Sum up the experts of a run."""
        every = tallies.values()
        return cls(
            cells=sum(t.total for t in every),
            asked=sum(t.asked for t in every),
            kept=sum(t.kept for t in every),
            regraded=sum(t.regraded for t in every),
            failed=sum(t.failed for t in every),
            missing=sum(t.total - t.done for t in every),
            cost_usd=sum(t.cost_usd for t in every),
            seconds=seconds,
            quality={name: t.mean_quality for name, t in tallies.items()},
            given_up={name: t.given_up for name, t in tallies.items() if t.given_up},
            errors={name: t.error for name, t in tallies.items() if t.error},
        )
