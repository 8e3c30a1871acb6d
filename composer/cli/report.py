"""An evaluation report as lines of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from composer.evaluation import FEWEST

if TYPE_CHECKING:
    from composer.report import CategoryResult, Report

__all__ = ["report_lines"]


def report_lines(report: "Report") -> Iterator[str]:
    """Render the tables that people look at: per category, and the router beside the baselines."""
    yield from _categories(report)
    yield ""
    yield from _policies(report)
    yield ""
    if report.gap_closed is not None:
        yield f"share of the gap from best single to oracle closed: {report.gap_closed:.0%}"
    if report.fallback_rate is not None:
        yield f"sent to the general expert because of doubt: {report.fallback_rate:.0%}"
    yield f"one decision takes {report.decision_ms:.1f} ms, encoder included"
    if report.leaks:
        yield f"warning: {len(report.leaks)} test queries also stand in the training queries"
    if report.skipped:
        yield f"note: {report.skipped} test queries lack an outcome and were left out"


def _categories(report: "Report") -> Iterator[str]:
    """Mean quality of each expert by category; the router's usual choice is marked."""
    width = max(len(c.category) for c in report.categories)
    columns = [max(len(expert), 6) + 2 for expert in report.experts]
    names = "".join(f"{e:>{w}}" for e, w in zip(report.experts, columns, strict=True))
    yield f"{report.queries} held-out queries; mean quality, * where the router mostly goes"
    if report.queries < FEWEST:
        yield f"fewer than {FEWEST} queries are too few for intervals and for significance"
    yield f"{'category':<{max(width, 8)}}    n{names}  router"
    for row in report.categories:
        cells = "".join(_cell(row, e, w) for e, w in zip(report.experts, columns, strict=True))
        yield f"{row.category:<{max(width, 8)}} {row.queries:>4}{cells}   {row.router:.3f}"


def _cell(row: "CategoryResult", expert: str, width: int) -> str:
    is_usual = row.chosen[expert] == max(row.chosen.values())
    return f"{row.quality[expert]:.3f}{'*' if is_usual else ' '}".rjust(width)


def _policies(report: "Report") -> Iterator[str]:
    """Every policy with its interval, and the router less each baseline."""
    against = {c.baseline: c for c in report.comparisons}
    width = max(len(p.name) for p in report.policies)
    unit = f"cost ({report.cost_unit})" if report.cost_unit else "cost"
    yield "quality and cost are means over categories, so that each counts the same"
    yield f"{'policy':<{width}}  quality [95 % interval]  {unit:>13}  router minus it"
    for policy in report.policies:
        low, high = policy.interval.low, policy.interval.high
        cost = "?" if policy.cost is None else f"{policy.cost:.3g}"
        if report.queries < FEWEST:  # an interval of so few would only mislead
            c = against.get(policy.name)
            minus = "" if c is None else f"  {c.difference:+.3f}"
            yield f"{policy.name:<{width}}  {policy.quality:.3f}   {'':14}  {cost:>13}{minus}"
            continue
        line = f"{policy.name:<{width}}  {policy.quality:.3f}   [{low:.3f}, {high:.3f}]  {cost:>13}"
        if (c := against.get(policy.name)) is not None:
            line += (
                f"  {c.difference:+.3f} [{c.interval.low:+.3f}, {c.interval.high:+.3f}] {c.verdict}"
            )
        yield line
