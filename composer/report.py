"""What an evaluation found, as values; `docs/evaluation.md` explains every figure.

Quality and cost are means over categories, each of which counts the same. ``weight`` is a
willingness to pay: the quality given up for the dearest expert's mean cost. A figure that the
data cannot give, for example one of costs that nobody knows, is None, never zero.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from composer.audit import Finding
from composer.health import HealthCheck
from composer.refits import ColdStart, Refit, StudyResult, Summary
from composer.statistics import Estimate, Interval, McNemar, Verdict

__all__ = [
    "BaselineCheck",
    "Calibration",
    "CategoryResult",
    "ColdStart",
    "Comparison",
    "CurvePoint",
    "Estimate",
    "Finding",
    "HealthCheck",
    "Interval",
    "McNemar",
    "Point",
    "PolicyKind",
    "PolicyResult",
    "Refit",
    "ReliabilityBin",
    "Report",
    "RouterResult",
    "StudyResult",
    "Summary",
    "Timing",
    "Tradeoff",
    "Verdict",
]

PolicyKind = Literal["router", "baseline", "control", "bound"]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What a policy reaches at one willingness to pay.

    Args:
        weight: quality given up for the dearest expert's mean cost.
        cost: mean over the categories' means; None where it is not known.
        quality: mean over the categories' means.
        regret: quality less weighted cost, below what the best choice on each query reaches.
        share: of the queries that each expert gets, in the order of `Report.experts`; empty where
            the policy is an expectation.
        below_baseline: whether it is significantly below the pinned baseline; None without one.
    """

    weight: float
    cost: float | None
    quality: float
    regret: float
    share: tuple[float, ...] = ()
    below_baseline: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """How a policy trades quality against cost over the willingness to pay.

    Areas and shares are read from the hull: the least non-decreasing concave curve over the
    policy's points and the cheapest expert, with which every policy may be mixed.

    Args:
        hull: corners (cost, quality), from the cheapest expert's mean cost to the dearest's.
        aiq: area under the hull over its width: mean quality over budgets (RouterBench).
        apgr: mean over budgets of the share recovered of what the strong expert (best on train)
            has over the weak one (the cheapest); a random mixture has 0.5 (RouteLLM).
        cpt50: least budget that recovers half of it, 0 all weak to 1 all strong.
        cpt80: the same for 80 %.
        perf_gain: best quality of the curve over that of the best single expert, less 1.
        cost_save: largest saving at no less quality than the best single expert, as a share.
        hypervolume: area dominated by the curve's points, from quality 0 and the dearest cost.
        pareto_ratio: share of its points on the joint frontier of all policies that can be had.
        pareto_distance: mean distance of its points to that frontier, costs scaled to [0, 1].
    """

    hull: tuple[tuple[float, float], ...]
    aiq: Estimate
    apgr: float | None
    cpt50: float | None
    cpt80: float | None
    perf_gain: float
    cost_save: float | None
    hypervolume: float
    pareto_ratio: float
    pareto_distance: float


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What one policy reaches.

    Args:
        name: of the policy.
        kind: a router, a baseline, a control that must show no gain, or a bound nobody can reach.
        quality: mean over the categories' means.
        plain_quality: mean over the queries.
        cost: mean over the categories' means; None where it is not known.
        interval: of ``quality``.
        gap_closed: share of the way from best single to oracle; None where these are equal.
        regret: what the oracle reaches above ``quality``.
        entropy: of the experts' shares of the queries, in nats; None for an expectation.
        effective_experts: its exponential: 1 where one expert gets everything.
        collapsed: whether so few experts are used that the health check would tell; None where
            there are too few queries to say.
        curve: over the willingness to pay.
        tradeoff: read from the curve; None where costs are unknown or all the same.
    """

    name: str
    kind: PolicyKind = "baseline"
    quality: float
    plain_quality: float
    cost: float | None
    interval: Interval
    gap_closed: float | None = None
    regret: float | None = None
    entropy: float | None = None
    effective_experts: float | None = None
    collapsed: bool | None = None
    curve: tuple[CurvePoint, ...] = ()
    tradeoff: Tradeoff | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A router less another policy, query by query.

    Args:
        baseline: name of the other policy.
        difference: of mean quality.
        interval: of ``difference``.
        verdict: what the interval says.
        mcnemar: the exact test of the same queries, each counting the same.
        aiq: difference of AIQ; None where costs are unknown.
    """

    baseline: str
    difference: float
    interval: Interval
    verdict: Verdict
    mcnemar: McNemar | None = None
    aiq: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class CategoryResult:
    """One row of the table of categories."""

    category: str
    queries: int
    quality: dict[str, float]  # of each expert
    chosen: dict[str, float]  # share of the queries that the router sent to each expert
    router: float  # quality the router reached
    difference: Estimate | None = None  # router less best single, query by query


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Cells whose predicted quality is alike: what was predicted and what came."""

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How true predicted quality is, over all cells (query, expert).

    Args:
        brier: mean squared difference from the outcome.
        constant_brier: the same for each expert's mean on train, which any router should beat.
        ece: mean over 15 bins of equal mass of the distance between predicted and observed.
        chosen_ece: the same on the chosen experts only, where luck is picked.
        bins: by rising prediction.
    """

    brier: float
    constant_brier: float
    ece: float
    chosen_ece: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds for one decision: median and 95th percentile, with and without the encoder."""

    p50_ms: float
    p95_ms: float
    routing_p50_ms: float
    routing_p95_ms: float


@dataclass(frozen=True, kw_only=True)
class BaselineCheck:
    """A router against the pinned expert.

    Args:
        baseline: the pinned expert.
        difference: router less baseline, in quality.
        interval: of ``difference``.
        verdict: what the interval says; ``worse`` is a violation.
        mcnemar: the exact test of the same queries, each counting the same.
    """

    baseline: str
    difference: float
    interval: Interval
    verdict: Verdict
    mcnemar: McNemar


@dataclass(frozen=True, kw_only=True)
class RouterResult:
    """What only a router has.

    Args:
        name: as in `Report.policies`.
        comparisons: against every policy that is not a router, then against the other routers.
        categories: per category.
        calibration: of predicted quality.
        timing: of one decision.
        fallback_rate: share of queries sent to the general expert; None where it has none.
        pinned: against the pinned baseline, where there is one.
        points: its curve, and the front of its category maps where it has some.
        health: what its choices on these queries say of it.
        lineage: what it was trained on.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    categories: tuple[CategoryResult, ...]
    calibration: Calibration | None
    timing: Timing | None
    fallback_rate: float | None
    pinned: BaselineCheck | None = None
    points: tuple["Point", ...] = ()
    health: tuple[HealthCheck, ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)


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
        policies: the routers first, then baselines, controls and bounds.
        routers: what only routers have, in the same order.
        experts_at: cost and quality of every single expert.
        leaks: ids of test queries that are, or nearly are, training queries.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        train_digest: identifies the data that baselines were chosen on.
        test_digest: identifies the test data.
        baseline: the pinned expert, where there is one.
        findings: of the audits.
        study: over refits, where some were made.
        created: ISO 8601 date, since prices and models change.
    """

    experts: tuple[str, ...]
    cost_unit: str
    queries: int
    skipped: int
    policies: tuple[PolicyResult, ...]
    routers: tuple[RouterResult, ...]
    experts_at: tuple[Point, ...]
    leaks: tuple[str, ...]
    resamples: int
    seed: int
    train_digest: str
    test_digest: str
    baseline: str | None = None
    findings: tuple[Finding, ...] = ()
    study: StudyResult | None = None
    created: str = ""

    # -- of the first router, which most reports are about ---------------------------------------

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The first router against every other policy."""
        return self.routers[0].comparisons

    @property
    def categories(self) -> tuple[CategoryResult, ...]:
        """The first router per category."""
        return self.routers[0].categories

    @property
    def points(self) -> tuple[Point, ...]:
        """The experts and the first router, for the quality-cost picture."""
        return (*self.experts_at, *self.routers[0].points)

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from best single to oracle that the first router goes."""
        return self.policies[0].gap_closed

    @property
    def fallback_rate(self) -> float | None:
        """Share of queries that the first router sends to the general expert in doubt."""
        return self.routers[0].fallback_rate

    @property
    def decision_ms(self) -> float:
        """Median time of one decision of the first router, with the encoder."""
        timing = self.routers[0].timing
        return float("nan") if timing is None else timing.p50_ms

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)
