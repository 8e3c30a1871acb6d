"""What an evaluation means, in sentences: what was shown, how surely, and what not to trust."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from composer.phrases import in_money, number, percent, signed, spread, told
from composer.report import Comparison, PolicyResult, Report, RouterResult, Summary
from composer.statistics import FEWEST, Verdict, verdict

__all__ = ["Conclusion", "conclude", "hangs_on_few", "single_expert"]

Tone = Literal["good", "mixed", "bad", "open"]
_FEW = 200  # queries below which only large differences can be shown
_DECIDING = 10  # queries that differ, below which a bootstrap interval is too short
_SMALL = 30  # queries of a category below which its row is a guess


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What a person should take home.

    Args:
        tone: whether a gain was shown, one less than that of a simpler way, a loss, or nothing.
        headline: the answer in one line.
        sentences: what it rests on, with intervals.
        cautions: which numbers not to trust, and why.
    """

    tone: Tone
    headline: str
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]


def conclude(report: Report) -> Conclusion:
    """Say what the report shows of its first router."""
    router, policy = report.routers[0], report.policies[0]
    tone, headline = _headline(report, router)
    return Conclusion(
        tone=tone,
        headline=headline,
        sentences=tuple(_sentences(report, router, policy)),
        cautions=tuple(_cautions(report, router)),
    )


def single_expert(report: Report) -> str | None:
    """Return which expert was best on train; None where the report does not tell."""
    single = _policy(report, "best single")
    if single is None or not single.curve or not single.curve[0].share:
        return None
    share = single.curve[0].share
    return report.experts[share.index(max(share))]


def hangs_on_few(found: Comparison) -> bool:
    """Say whether a significant difference hangs on so few queries that it may be luck."""
    test = found.mcnemar
    if test is None or found.verdict == "not significant":
        return False
    return test.wins + test.losses < _DECIDING and test.p >= 0.05


def _headline(report: Report, router: RouterResult) -> tuple[Tone, str]:
    found, table = _against(router, "best single"), _against(router, "category table")
    who = "The router" if router.name == "router" else router.name
    if report.queries < FEWEST or found is None:
        return "open", f"{report.queries} queries are too few to say whether routing gains"
    if found.verdict == "worse":
        return "bad", f"{who} answers worse than the best single expert"
    but = ""
    if table is not None and "worse" in (table.verdict, _thrift(table, report)):
        but = "; but a table of the best expert for each category does better still"
    if found.verdict == "better":
        gain = f"{who} answers better than the best single expert"
    elif _thrift(found, report) == "better":
        gain = f"{who} answers better than the best single expert for the same money"
    else:
        return "open", "No gain over the best single expert could be shown"
    return ("mixed" if but else "good"), gain + but


def _thrift(found: Comparison, report: Report) -> Verdict:
    """Say what the difference in AIQ means."""
    if found.aiq is None:
        return "not significant"
    return verdict(found.aiq.interval, report.queries)


def _sentences(report: Report, router: RouterResult, policy: PolicyResult) -> Iterator[str]:
    name = single_expert(report)
    yield from _quality(report, router, policy, "best single", f" ({name})" if name else "")
    yield from _quality(report, router, policy, "category table", " (chosen on the training part)")
    yield from _money(report, router, policy)
    yield from _beaten(report, router)
    if (pinned := router.pinned) is not None and report.queries >= FEWEST:
        words = {
            "better": "significantly better",
            "worse": "significantly worse, which must not be",
            "not significant": "not significantly different",
        }
        yield (
            f"Against the pinned {pinned.baseline} it is {words[pinned.verdict]}: "
            f"{signed(pinned.difference)} ({spread(pinned.interval, sign=True)})."
        )
    if report.study is not None:
        for summary in report.study.summaries:
            if summary.router == router.name:
                yield _refits(summary)


def _quality(
    report: Report, router: RouterResult, policy: PolicyResult, rival: str, which: str
) -> Iterator[str]:
    found, other = _against(router, rival), _policy(report, rival)
    if found is None or other is None:
        return
    label = "the best single expert" if rival == "best single" else f"the {rival}"
    words = {
        "better": f"That is better than {label}{which}",
        "worse": f"That is worse than {label}{which}",
        "not significant": f"No difference from {label}{which} could be shown",
    }
    start = ""
    if rival == "best single":
        start = f"Mean quality is {number(policy.quality)} on {report.queries} held-out queries. "
    if report.queries < FEWEST:
        yield f"{start}{label[0].upper()}{label[1:]} has {number(other.quality)}."
        return
    yield (
        f"{start}{words[found.verdict]}, with {number(other.quality)}: the difference is "
        f"{signed(found.difference)} (95 % interval {spread(found.interval, sign=True)})."
    )


def _money(report: Report, router: RouterResult, policy: PolicyResult) -> Iterator[str]:
    single, found = _policy(report, "best single"), _against(router, "best single")
    if policy.cost is None or single is None or single.cost is None:
        yield "What it costs is not known, so quality could not be weighed against cost."
        return
    change = policy.cost / single.cost - 1 if single.cost > 0 else 0.0
    same = f"{percent(abs(change))} {'less' if change < 0 else 'more'} than"
    yield (
        f"It costs {in_money(policy.cost, report.cost_unit)}, "
        f"{same if abs(change) >= 0.005 else 'the same as'} the best single expert "
        f"({in_money(single.cost, report.cost_unit)})."
    )
    if found is None or found.aiq is None or report.queries < FEWEST:
        return
    words = {
        "better": "For the same money it answers better than the best single expert",
        "worse": "For the same money it answers worse than the best single expert",
        "not significant": "No difference for the same money could be shown",
    }
    said = words[_thrift(found, report)]
    yield f"{said}: mean quality over all budgets (AIQ) differs by {told(found.aiq)}."
    if policy.tradeoff is not None and (saved := policy.tradeoff.cost_save):
        yield (
            f"Turned to thrift, it reached the quality of the best single expert {percent(saved)} "
            "cheaper on these queries; that figure has no interval and is the best of many."
        )


def _beaten(report: Report, router: RouterResult) -> Iterator[str]:
    kinds = {policy.name: policy.kind for policy in report.policies}
    above = [
        f"{c.baseline} by {number(-c.difference)}"
        for c in router.comparisons
        if c.verdict == "worse" and kinds.get(c.baseline) in ("baseline", "router")
        and c.baseline not in ("best single", "category table")
        and not c.baseline.startswith("pinned ")
    ]  # fmt: skip
    if above:
        yield f"Significantly better than it: {', '.join(above)}."


def _refits(found: Summary) -> str:
    gain = found.differences["best single"]
    where = (
        f"Fitted anew on {found.refits} other random splits"
        if found.kind == "random"
        else f"On {found.refits} categories that training had not seen"
    )
    if found.refits < 2:
        return f"{where}, the difference from the best single expert is {signed(gain.value)}."
    outcome = {
        "better": "it is better than the best single expert",
        "worse": "it is worse than the best single expert",
        "not significant": "no difference from the best single expert could be shown",
    }[verdict(gain.interval, FEWEST)]
    area = found.aiq_differences.get("best single")
    return (
        f"{where}, {outcome}: {told(gain)}; taken alone, it was significantly better on "
        f"{found.better} of them and significantly worse on {found.worse}."
        + (f" In AIQ the difference is {told(area)}." if area else "")
    )


def _cautions(report: Report, router: RouterResult) -> Iterator[str]:
    n = report.queries
    if n < FEWEST:
        yield f"All: {n} held-out queries are fewer than {FEWEST}, so nothing is significant."
    elif n < _FEW:
        yield f"{n} held-out queries can show large differences only; intervals are wide."
    if report.leaks:
        yield f"{len(report.leaks)} test queries also stand in the training queries and flatter."
    if report.skipped:
        yield f"{report.skipped} test queries lack an outcome and were left out."
    small = [row.category or "(none)" for row in router.categories if row.queries < _SMALL]
    if small and len(router.categories) > 1:
        yield (
            f"{len(small)} of {len(router.categories)} categories have fewer than {_SMALL} "
            "queries; their rows are guesses, and each counts as much as a large one."
        )
    if len(report.routers) > 1:
        yield (
            f"{len(report.routers)} routers were compared on the same queries; the best of them "
            "owes part of its lead to luck."
        )
    if report.study is None:
        yield "One split only: how much figures change with the split was not measured (--refits)."
    bounds = {policy.name for policy in report.policies if policy.kind == "bound"}
    few = [c.baseline for c in router.comparisons if hangs_on_few(c) and c.baseline not in bounds]
    if few:
        yield (
            f"The differences in quality from {', '.join(few)} hang on fewer than {_DECIDING} "
            "queries; McNemar's test does not find them significant."
        )
    yield from _controls(report, router)
    if (found := router.calibration) is not None and found.brier >= found.constant_brier:
        yield (
            f"Predicted quality: its Brier score ({number(found.brier)}) is no better than that of "
            f"each expert's mean ({number(found.constant_brier)})."
        )
    yield "The oracle picks with the outcomes in hand, and so picks luck too; no router gets there."


def _controls(report: Report, router: RouterResult) -> Iterator[str]:
    single = _policy(report, "best single")
    for policy in report.policies:
        name = policy.name
        if policy.kind != "control" or name not in ("shuffled control", f"shuffled {router.name}"):
            continue
        found = _against(router, name)
        gains = found is not None and (
            found.verdict == "better" or (found.aiq is not None and found.aiq.interval.low > 0)
        )
        if not gains and report.queries >= FEWEST:
            yield (
                f"{router.name} is not significantly better than itself trained on shuffled "
                "outcomes: it was not shown to gain anything from reading queries."
            )
        area = policy.tradeoff and policy.tradeoff.aiq
        if area and single and single.tradeoff:
            usual = single.tradeoff.aiq.value
            if area.interval.low > usual:
                yield (
                    f"Even the shuffled control has an AIQ of {number(area.value)}, above the "
                    f"best single expert's {number(usual)}: so much is gained by mixing experts, "
                    "not by reading queries."
                )


def _against(router: RouterResult, name: str) -> Comparison | None:
    return next((c for c in router.comparisons if c.baseline == name), None)


def _policy(report: Report, name: str) -> PolicyResult | None:
    return next((p for p in report.policies if p.name == name), None)
