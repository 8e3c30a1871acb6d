"""What an evaluation found, as values."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = [
    "CategoryResult",
    "Comparison",
    "Interval",
    "Point",
    "PolicyResult",
    "Report",
    "Verdict",
]

Verdict = Literal["better", "worse", "not significant"]


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What one policy reaches.

    Args:
        name: of the policy.
        quality: mean over the categories' means.
        plain_quality: mean over the queries.
        cost: mean over the categories' means; None where it is not known.
        interval: of ``quality``.
    """

    name: str
    quality: float
    plain_quality: float
    cost: float | None
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The router less a baseline, query by query."""

    baseline: str
    difference: float
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class CategoryResult:
    """One row of the table of categories."""

    category: str
    queries: int
    quality: dict[str, float]  # of each expert
    chosen: dict[str, float]  # share of the queries that the router sent to each expert
    router: float  # quality the router reached


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the quality-cost picture."""

    kind: Literal["expert", "router", "mapping"]
    label: str
    cost: float | None
    quality: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found.

    Args:
        experts: the candidates.
        cost_unit: what costs count.
        queries: test queries that were evaluated.
        skipped: test queries left out because an outcome is missing.
        policies: the router first, then the baselines.
        comparisons: the router against every baseline.
        categories: per category.
        gap_closed: (router - best single) / (oracle - best single); None where these are equal.
        fallback_rate: share of queries sent to the general expert; None where a router has none.
        decision_ms: median time of one decision, with the encoder.
        leaks: ids of test queries that are, or nearly are, training queries.
        points: for the quality-cost picture.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        lineage: what the router was trained on.
        test_digest: identifies the test data.
    """

    experts: tuple[str, ...]
    cost_unit: str
    queries: int
    skipped: int
    policies: tuple[PolicyResult, ...]
    comparisons: tuple[Comparison, ...]
    categories: tuple[CategoryResult, ...]
    gap_closed: float | None
    fallback_rate: float | None
    decision_ms: float
    leaks: tuple[str, ...]
    points: tuple[Point, ...]
    resamples: int
    seed: int
    lineage: dict[str, Any]
    test_digest: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)
