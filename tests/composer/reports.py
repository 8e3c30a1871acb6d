"""Reports made up for tests: every part is there, and every figure is known."""

from collections.abc import Sequence
from dataclasses import replace

from composer.audit import Finding
from composer.health import HealthCheck
from composer.report import (
    BaselineCheck,
    Calibration,
    CategoryResult,
    ColdStart,
    Comparison,
    CurvePoint,
    Estimate,
    Interval,
    McNemar,
    Point,
    PolicyResult,
    Refit,
    ReliabilityBin,
    Report,
    RouterResult,
    StudyResult,
    Summary,
    Timing,
    Tradeoff,
)

COSTS = {"small": 0.1, "coder": 0.5, "twin": 0.5, "big": 5.0}
QUALITY = {"small": 0.4, "coder": 0.6, "twin": 0.6, "big": 0.8}
_KINDS = {"router": "router", "shuffled control": "control", "oracle": "bound"}


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value, Interval(value - half, value + half))


def tradeoff(aiq: float) -> Tradeoff:
    return Tradeoff(
        hull=((0.1, 0.4), (0.5, 0.6), (5.0, 0.8)),
        aiq=estimate(aiq),
        apgr=0.7,
        cpt50=0.2,
        cpt80=None,
        perf_gain=0.03,
        cost_save=0.25,
        hypervolume=0.5,
        pareto_ratio=0.4,
        pareto_distance=0.01,
    )


def policy(name: str, quality: float, cost: float | None, experts: int = 4) -> PolicyResult:
    share = (1.0, *[0.0] * (experts - 1))
    curve = [
        CurvePoint(weight=w, cost=cost, quality=quality - w / 20, regret=0.2 + w / 50, share=share)
        for w in (0.0, 0.01, 0.1, 1.0)
    ]
    return PolicyResult(
        name=name,
        kind=_KINDS.get(name, "baseline"),
        quality=quality,
        plain_quality=quality,
        cost=cost,
        interval=Interval(quality - 0.1, quality + 0.05),
        gap_closed=0.25,
        regret=0.1,
        effective_experts=1.0,
        curve=tuple(curve),
        tradeoff=None if cost is None else tradeoff(quality - 0.088),
    )


def comparison(name: str, difference: float, half: float = 0.02) -> Comparison:
    interval = Interval(difference - half, difference + half)
    significant = "better" if interval.low > 0 else "worse" if interval.high < 0 else None
    return Comparison(
        baseline=name,
        difference=difference,
        interval=interval,
        verdict=significant or "not significant",
        mcnemar=McNemar(wins=30, losses=12, p=0.0079),
        aiq=Estimate(difference, interval),
    )


def study(router: str, experts: Sequence[str]) -> StudyResult:
    refit = Refit(
        kind="random",
        held_out="seed 0",
        router=router,
        queries=240,
        quality=0.8,
        cost=3.0,
        aiq=0.7,
        gap_closed=0.2,
        differences={"best single": 0.03, "category table": -0.01},
        aiq_differences={"best single": 0.05},
        verdict="better",
        mcnemar=McNemar(wins=30, losses=12, p=0.0079),
        pinned="not significant",
    )
    summary = Summary(
        kind="random",
        router=router,
        refits=2,
        quality=0.8,
        quality_sd=0.01,
        aiq=0.7,
        aiq_sd=0.01,
        gap_closed=0.2,
        differences={"best single": estimate(0.03), "category table": estimate(-0.01)},
        aiq_differences={"best single": estimate(0.05)},
        better=2,
        worse=0,
        violations=0.0,
    )
    cold = ColdStart(
        expert=experts[-1],
        router=router,
        prior=0.7,
        probed=0.75,
        full=0.8,
        share=(0.0, 0.1, 0.2),
        error=(0.3, 0.1, 0.05),
        probes=20,
    )
    left_out = replace(refit, kind="category", held_out="code", verdict="not significant")
    return StudyResult(
        refits=(refit, replace(refit, held_out="seed 1"), left_out),
        summaries=(summary, replace(summary, kind="category", refits=1)),
        cold_starts=(cold,),
        seed=0,
        fits=5,
        seconds=1.5,
    )


def report(*, costs: bool = True, name: str = "router", **changes) -> Report:
    """Return a report on one router and four experts."""
    row = CategoryResult(
        category="code",
        queries=120,
        quality=QUALITY,
        chosen={"small": 0.0, "coder": 0.9, "twin": 0.0, "big": 0.1},
        router=0.62,
        difference=estimate(-0.18, 0.05),
    )
    router = RouterResult(
        name=name,
        comparisons=(
            comparison("best single", 0.05),
            comparison("category table", 0.01),
            comparison("random", 0.2),
            comparison("shuffled control", 0.04),
            comparison("oracle", -0.1),
        ),
        categories=(row, replace(row, category="")),
        calibration=Calibration(
            brier=0.2,
            constant_brier=0.24,
            ece=0.03,
            chosen_ece=0.05,
            bins=(
                ReliabilityBin(predicted=0.3, observed=0.32, count=100),
                ReliabilityBin(predicted=0.7, observed=0.6, count=100),
            ),
        ),
        timing=Timing(p50_ms=2.0, p95_ms=3.0, routing_p50_ms=0.1, routing_p95_ms=0.2),
        fallback_rate=0.1,
        pinned=BaselineCheck(
            baseline="big",
            difference=0.05,
            interval=Interval(0.03, 0.07),
            verdict="better",
            mcnemar=McNemar(wins=30, losses=12, p=0.0079),
        ),
        points=(Point(kind="mapping", label="map 0", cost=0.4 if costs else None, quality=0.5),),
        health=(
            HealthCheck(
                check="collapse",
                raised=True,
                value=1.0,
                threshold=2.0,
                subjects=("small",),
                message="1.0 of 4 experts are effectively used",
            ),
        ),
        lineage={"data": "abc", "seen": ["0123"]},
    )
    reached = {
        name: (0.8, 3.0),
        "best single": (0.75, 5.0),
        "category table": (0.79, 2.0),
        "random": (0.6, 2.5),
        "shuffled control": (0.75, 5.0),
        "oracle": (0.9, 1.0),
    }
    whole = Report(
        experts=tuple(COSTS),
        cost_unit="B params",
        queries=240,
        skipped=0,
        policies=tuple(
            replace(policy(n, q, c if costs else None), kind="router" if n == name else kind)
            for n, (q, c) in reached.items()
            for kind in [_KINDS.get(n, "baseline")]
        ),
        routers=(router,),
        experts_at=tuple(
            Point(kind="expert", label=n, cost=COSTS[n] if costs else None, quality=QUALITY[n])
            for n in COSTS
        ),
        leaks=(),
        resamples=1000,
        seed=0,
        train_digest="train0123",
        test_digest="test0123",
        baseline="big",
        findings=(Finding(check="cells", severity="warning", message="5 are missing", count=5),),
        study=study(name, tuple(COSTS)),
        created="2026-01-02",
    )
    return replace(whole, **changes)


def with_experts(names: Sequence[str], name: str = "router") -> Report:
    """Return a report on one router and these experts."""
    base = report(name=name)
    quality = {n: 0.3 + 0.5 * i / len(names) for i, n in enumerate(names)}
    row = replace(
        base.categories[0],
        category=names[0],
        quality=quality,
        chosen={n: float(i == 0) for i, n in enumerate(names)},
    )
    return replace(
        base,
        experts=tuple(names),
        policies=tuple(
            replace(policy(p.name, p.quality, p.cost, len(names)), kind=p.kind)
            for p in base.policies
        ),
        routers=(replace(base.routers[0], categories=(row,)),),
        experts_at=tuple(
            Point(kind="expert", label=n, cost=0.1 * 1.2**i, quality=q)
            for i, (n, q) in enumerate(quality.items())
        ),
        study=study(name, names),
        baseline=names[0],
    )
