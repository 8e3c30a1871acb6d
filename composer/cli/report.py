"""An evaluation report as lines of text."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from composer.statistics import FEWEST

if TYPE_CHECKING:
    from composer.report import (
        CategoryResult,
        Estimate,
        Finding,
        PolicyResult,
        Report,
        RouterResult,
        Summary,
    )

__all__ = ["report_lines"]

_SHOWN = 12  # experts whose columns fit on a screen
_FOLDED = 4  # left-out categories and experts beyond which only sums are shown


def report_lines(report: "Report") -> Iterator[str]:
    """Render the tables that people look at: categories, policies, costs, refits."""
    yield from _findings(report.findings)
    if report.findings:
        yield ""
    yield from _categories(report)
    yield ""
    yield from _policies(report)
    yield ""
    if any(policy.tradeoff for policy in report.policies):
        yield from _costs(report)
        yield ""
    for router in report.routers:
        yield from _router(report, router)
    if report.study is not None:
        yield ""
        yield from _study(report)
    if report.leaks:
        yield f"warning: {len(report.leaks)} test queries also stand in the training queries"
    if report.skipped:
        yield f"note: {report.skipped} test queries lack an outcome and were left out"


def _findings(findings: Sequence["Finding"]) -> Iterator[str]:
    """Render what the audits found, the worst first."""
    for finding in findings:
        examples = f" (for example {', '.join(finding.examples[:3])})" if finding.examples else ""
        yield f"{finding.severity}: {finding.check}: {finding.message}{examples}"


def _categories(report: "Report") -> Iterator[str]:
    """Mean quality of each expert by category; the router's usual choice is marked."""
    rows = report.categories
    names = _worth_a_column(rows, report.experts)
    width = max(len("category"), *(len(c.category) for c in rows))
    columns = [max(len(expert), 6) + 2 for expert in names]
    head = "".join(f"{e:>{w}}" for e, w in zip(names, columns, strict=True))
    yield f"{report.queries} held-out queries; mean quality, * where the router mostly goes"
    if report.queries < FEWEST:
        yield f"fewer than {FEWEST} queries are too few for intervals and for significance"
    if len(names) < len(report.experts):
        yield f"{len(names)} of {len(report.experts)} experts are shown, the most used first"
    yield f"{'category':<{width}}    n{head}  router"
    for row in rows:
        cells = "".join(_cell(row, e, w) for e, w in zip(names, columns, strict=True))
        yield f"{row.category:<{width}} {row.queries:>4}{cells}   {row.router:.3f}"


def _worth_a_column(rows: Sequence["CategoryResult"], experts: Sequence[str]) -> list[str]:
    if len(experts) <= _SHOWN:
        return list(experts)
    used = {e: sum(row.queries * row.chosen[e] for row in rows) for e in experts}
    good = {e: sum(row.quality[e] for row in rows) for e in experts}
    return sorted(experts, key=lambda e: (-used[e], -good[e]))[: _SHOWN // 2]


def _cell(row: "CategoryResult", expert: str, width: int) -> str:
    is_usual = row.chosen[expert] == max(row.chosen.values())
    return f"{row.quality[expert]:.3f}{'*' if is_usual else ' '}".rjust(width)


def _policies(report: "Report") -> Iterator[str]:
    """Every policy with its interval, and the router less each of them."""
    against = {c.baseline: c for c in report.comparisons}
    width = max(len(p.name) for p in report.policies)
    unit = f"cost ({report.cost_unit})" if report.cost_unit else "cost"
    first = report.routers[0].name
    yield "quality and cost are means over categories, so that each counts the same"
    yield f"{'policy':<{width}}  quality [95 % interval]  {unit:>13}  {first} minus it"
    for policy in report.policies:
        low, high = policy.interval.low, policy.interval.high
        cost = "?" if policy.cost is None else f"{policy.cost:.3g}"
        c = against.get(policy.name)
        if report.queries < FEWEST:  # an interval of so few would only mislead
            minus = "" if c is None else f"  {c.difference:+.3f}"
            yield f"{policy.name:<{width}}  {policy.quality:.3f}   {'':14}  {cost:>13}{minus}"
            continue
        line = f"{policy.name:<{width}}  {policy.quality:.3f}   [{low:.3f}, {high:.3f}]  {cost:>13}"
        if c is not None:
            line += (
                f"  {c.difference:+.3f} [{c.interval.low:+.3f}, {c.interval.high:+.3f}] {c.verdict}"
            )
        yield line


def _costs(report: "Report") -> Iterator[str]:
    """What each policy makes of money, over all willingnesses to pay."""
    against = {c.baseline: c for c in report.comparisons}
    width = max(len(p.name) for p in report.policies)
    yield "over all budgets: AIQ is the mean quality, APGR the mean share of the way from the"
    yield "cheapest expert to the best single one (random mixing: 0.5), CPT the share of the"
    yield "spending that buys 50 % and 80 % of it, save what is saved at the best single's quality"
    head = f"{'policy':<{width}}  {'AIQ':>5}  {'APGR':>6}  {'CPT50':>6}  {'CPT80':>6}  {'save':>5}"
    yield f"{head}  {report.routers[0].name} minus it, in AIQ"
    for policy in report.policies:
        if (found := policy.tradeoff) is None:
            continue
        line = (
            f"{policy.name:<{width}}  {found.aiq.value:.3f}  {_share(found.apgr):>6}  "
            f"{_share(found.cpt50):>6}  {_share(found.cpt80):>6}  {_percent(found.cost_save):>5}"
        )
        comparison = against.get(policy.name)
        if comparison is not None and comparison.aiq is not None:
            is_few = report.queries < FEWEST
            told = f"{comparison.aiq.value:+.4f}" if is_few else _difference(comparison.aiq)
            line += f"  {told}"
        yield line


def _router(report: "Report", router: "RouterResult") -> Iterator[str]:
    name = router.name if len(report.routers) > 1 else ""
    told = f"{name}: " if name else ""
    policy = next(p for p in report.policies if p.name == router.name)
    m = len(report.experts)
    if policy.gap_closed is not None:
        yield f"{told}share of the gap from best single to oracle closed: {policy.gap_closed:.0%}"
    if router.fallback_rate is not None:
        yield f"{told}sent to the general expert because of doubt: {router.fallback_rate:.0%}"
    if policy.effective_experts is not None:
        yield f"{told}experts effectively used: {policy.effective_experts:.1f} of {m}"
    if (found := router.calibration) is not None:
        yield (
            f"{told}predicted quality: Brier {found.brier:.3f} (each expert's mean: "
            f"{found.constant_brier:.3f}), off by {found.ece:.3f} on average, by "
            f"{found.chosen_ece:.3f} on the chosen experts"
        )
    if (pinned := router.pinned) is not None:
        low, high = pinned.interval.low, pinned.interval.high
        line = f"{told}against the pinned {pinned.baseline}: {pinned.difference:+.3f}"
        if report.queries >= FEWEST:
            line += f" [{low:+.3f}, {high:+.3f}] {pinned.verdict}{_below(policy)}"
        yield line
    if (timing := router.timing) is not None:
        yield (
            f"{told}one decision takes {timing.p50_ms:.1f} ms, encoder included "
            f"(95 %: {timing.p95_ms:.1f}); {timing.routing_p50_ms:.2f} ms without it"
        )
    for check in router.health:
        if check.raised:
            yield f"{told}health: {check.check}: {check.message}"


def _below(policy: "PolicyResult") -> str:
    known = [point for point in policy.curve if point.below_baseline is not None]
    below = [point for point in known if point.below_baseline]
    if not below:
        return "; at no cost weight significantly below it"
    return f"; significantly below it at cost weights from {min(p.weight for p in below):g}"


def _study(report: "Report") -> Iterator[str]:
    found = report.study
    if found is None:
        return
    yield f"{found.fits} further fits, the first split by seed {found.seed}"
    for summary in found.summaries:
        yield from _summary(summary)
    for refit in [r for r in found.refits if r.kind == "category"][: 3 * _FOLDED]:
        yield (
            f"  without {refit.held_out}: {refit.router} "
            f"{refit.differences['best single']:+.3f} against best single on {refit.queries} "
            f"queries, {refit.verdict} (McNemar p = {refit.mcnemar.p:.2g})"
        )
    if found.cold_starts:
        yield "an expert hidden from training: quality with its prior, after probes, fully known"
        for cold in found.cold_starts:
            before, after, full = cold.share
            yield (
                f"  {cold.expert}: {cold.router} {cold.prior:.3f}, {cold.probed:.3f} "
                f"({cold.probes} probes), {cold.full:.3f}; gets {before:.0%}, {after:.0%}, "
                f"{full:.0%} of the queries; its mean is missed by {cold.error[0]:.3f}, "
                f"{cold.error[1]:.3f}, {cold.error[2]:.3f}"
            )


def _summary(found: "Summary") -> Iterator[str]:
    kind = "random splits" if found.kind == "random" else "left-out categories"
    area = "" if found.aiq is None else f", AIQ {found.aiq:.3f} (sd {found.aiq_sd or 0:.3f})"
    yield (
        f"{found.router} over {found.refits} {kind}: quality {found.quality:.3f} "
        f"(sd {found.quality_sd:.3f}){area}"
    )
    for name in ("best single", "category table", "word ridge", "prompt length"):
        if name in found.differences:
            line = f"  minus {name:<14}  {_difference(found.differences[name])}"
            if name in found.aiq_differences:
                line += f"   in AIQ {_difference(found.aiq_differences[name])}"
            yield line
    yield (
        f"  McNemar against best single: better in {found.better}, worse in {found.worse} "
        f"of {found.refits}"
    )
    if found.violations is not None:
        yield f"  significantly below the pinned expert: {found.violations:.0%} of the refits"


def _difference(found: "Estimate") -> str:
    return f"{found.value:+.4f} [{found.interval.low:+.4f}, {found.interval.high:+.4f}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
