"""What an evaluation of retrievers found, as values, and as lines of text."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from composer.retrieval_measures import NDCG
from composer.statistics import Interval, Verdict

__all__ = ["Difference", "RetrievalReport", "System", "retrieval_lines"]


@dataclass(frozen=True, kw_only=True)
class System:
    """One way to retrieve.

    Args:
        name: shown to people.
        kind: ``single``, ``routed``, ``baseline`` or ``bound``.
        datasets: dataset -> measure -> mean.
        macro: measure -> mean over the datasets.
    """

    name: str
    kind: str
    datasets: Mapping[str, Mapping[str, float]]
    macro: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Macro mean nDCG@10 of a routed system less that of another, on the same queries."""

    system: str
    other: str
    value: float
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """All systems on all datasets.

    Args:
        queries: dataset -> number of test queries.
        general: the retriever that every other is compared with.
        systems: in the order in which they are shown.
        differences: of the routed systems to all others.
        accuracy: share of the queries with a best retriever on which the router finds it.
        gap_closed: share of the way from the general retriever to the dataset oracle and to the
            instance oracle; None where there is no way to go.
        resamples: of the bootstrap.
    """

    queries: Mapping[str, int]
    general: str
    systems: tuple[System, ...]
    differences: tuple[Difference, ...]
    accuracy: float | None
    gap_closed: Mapping[str, float | None]
    resamples: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def system(self, name: str) -> System:
        """Return one of them by name."""
        return next(system for system in self.systems if system.name == name)


def retrieval_lines(report: RetrievalReport) -> Iterator[str]:
    """Render the table of nDCG@10, the other measures, and the differences."""
    names = list(report.queries)
    width = max(len(system.name) for system in report.systems)
    columns = [max(len(name), 5) + 2 for name in names]
    heads = "".join(f"{name:>{w}}" for name, w in zip(names, columns, strict=True))
    counts = "".join(f"{report.queries[n]:>{w}}" for n, w in zip(names, columns, strict=True))
    others = [measure for measure in report.systems[0].macro if measure != NDCG]
    more = "".join(f"{measure:>12}" for measure in others)
    yield f"{NDCG} on held-out queries; macro means count every dataset the same"
    yield f"{'system':<{width}}{heads}    macro{more}"
    yield f"{'queries':<{width}}{counts}"
    for system in report.systems:
        cells = [f"{system.datasets[n][NDCG]:.3f}" for n in names]
        row = "".join(f"{cell:>{w}}" for cell, w in zip(cells, columns, strict=True))
        rest = "".join(f"{system.macro[measure]:>12.3f}" for measure in others)
        yield f"{system.name:<{width}}{row}    {system.macro[NDCG]:.3f}{rest}"
    for d in report.differences:
        low, high = d.interval.low, d.interval.high
        yield f"{d.system} minus {d.other}: {d.value:+.4f} [{low:+.4f}, {high:+.4f}] {d.verdict}"
    if report.accuracy is not None:
        yield f"routing accuracy: {report.accuracy:.3f} of the queries that somebody does best"
    for bound, share in report.gap_closed.items():
        told = "nothing to gain" if share is None else f"{share:.0%}"
        yield f"share closed of the gap from {report.general} to the {bound}: {told}"
