"""Draw whether predictions hold, what thrift costs, and who is asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from composer.canvas import MUTED, PAPER, Figure, Look, canvas, looks, plain, shown
from composer.report import Calibration, CurvePoint, PolicyResult, Report
from composer.statistics import wilson

__all__ = ["calibration", "regret", "who_is_asked"]

_PANELS = 4  # routers that fit side by side
_FROM, _TO = 0.003, 10.0  # least and greatest willingness to pay that is drawn
_ZERO = 0.0016  # where a willingness of 0 stands on a logarithmic axis
_SHOWN = 7  # experts that are told apart; the others are summed up
_FILLS = (  # of Okabe and Ito, in an order of lightness that alternates
    ("#0072b2", ""), ("#e69f00", "//"), ("#56b4e9", ".."), ("#d55e00", "\\\\"),
    ("#009e73", "xx"), ("#f0e442", ""), ("#cc79a7", "--"),
)  # fmt: skip
_LEAST = 0.01  # share of the queries from which an expert is worth telling
_REST = ("#bbbbbb", "||")


def calibration(report: Report) -> Figure | None:
    """Draw what came of cells whose predicted quality was alike; None without predictions."""
    known = [(r.name, r.calibration) for r in report.routers if r.calibration is not None]
    if not known:
        return None
    look = looks(report)
    with plain():
        known = known[:_PANELS]
        figure = canvas(max(4.6, 3.4 * len(known)), 4.2)
        panels = figure.subplots(1, len(known), squeeze=False, sharey=True)[0]
        for axes, (name, found) in zip(panels, known, strict=True):
            _reliability(axes, name, found, look[name])
        panels[0].set_ylabel("observed mean quality")
    return figure


def regret(report: Report) -> Figure | None:
    """Draw the distance to the best choice over the willingness to pay; None without costs."""
    policies = [p for p in report.policies if _over_weights(p)]
    if not policies:
        return None
    look = looks(report)
    single = next((p for p in policies if p.name == "best single"), policies[0])
    base = np.array([p.regret for p in _drawn(single.curve)])
    with plain():
        figure = canvas(11.5, 4.6)
        whole, saved = figure.subplots(1, 2)
        for policy in policies:
            at, drawn = _drawn(policy.curve), look[policy.name]
            weights = [max(p.weight, _ZERO) for p in at]
            lost = np.array([p.regret for p in at])
            for axes, values in ((whole, lost), (saved, base - lost)):
                axes.plot(
                    weights, values, color=drawn.color, linestyle=drawn.line,
                    linewidth=drawn.width, marker=drawn.marker, markevery=3, markersize=6,
                    markerfacecolor=drawn.color if drawn.is_filled else PAPER,
                    label=shown(policy.name),
                )  # fmt: skip
        _weights(whole, "Regret: how far below the best choice")
        _weights(saved, f"Regret avoided, against {shown(single.name)}")
        whole.set_ylim(bottom=0)
        whole.set_ylabel("quality less weighted cost")
        figure.legend(*whole.get_legend_handles_labels(), loc="outside right upper")
    return figure


def who_is_asked(report: Report) -> Figure | None:
    """Draw each expert's share of the queries over the willingness to pay; None without costs."""
    routers = [p for p in report.policies if p.kind == "router" and _over_weights(p)]
    if not routers or len(report.experts) < 2:
        return None
    with plain():
        routers = routers[:_PANELS]
        order = _most_asked(report, routers)
        fills = dict(zip(order, _FILLS, strict=False))
        figure = canvas(max(7.0, 2.6 + 3.4 * len(routers)), 4.4)
        panels = figure.subplots(1, len(routers), squeeze=False, sharey=True)[0]
        for axes, policy in zip(panels, routers, strict=True):
            _stack(axes, policy, report.experts, fills)
        panels[0].set_ylabel("share of the queries (categories count the same)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    return figure


def _reliability(axes: Any, name: str, found: Calibration, look: Look) -> None:
    predicted = np.array([b.predicted for b in found.bins])
    observed = np.array([b.observed for b in found.bins])
    spans = [wilson(b.observed * b.count, b.count) for b in found.bins]
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    axes.vlines(predicted, [s.low for s in spans], [s.high for s in spans], look.color, linewidth=1)
    axes.plot(
        predicted, observed, look.marker, color=look.color, markersize=7, linestyle="-",
        linewidth=1, markerfacecolor=look.color if look.is_filled else PAPER,
    )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="predicted quality")
    axes.set_title(
        f"{shown(name, 26)}: off by {found.ece:.3f}\non chosen experts {found.chosen_ece:.3f}"
    )
    axes.text(0.03, 0.95, "better than predicted", color=MUTED, fontsize=8, va="top")
    axes.text(0.97, 0.03, "worse than predicted", color=MUTED, fontsize=8, ha="right")
    axes.grid()


def _over_weights(policy: PolicyResult) -> bool:
    return len(policy.curve) > 1 and policy.kind != "bound" and policy.curve[0].cost is not None


def _drawn(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    return [p for p in curve if p.weight == 0 or _FROM <= p.weight <= _TO]


def _weights(axes: Any, title: str) -> None:
    """Make the horizontal axis the willingness to pay, with a place for zero."""
    axes.set_xscale("log")
    ticks = [_ZERO, 0.01, 0.1, 1.0, 10.0]
    axes.set_xticks(ticks, ["0", "0.01", "0.1", "1", "10"])
    axes.minorticks_off()
    axes.set_xlim(_ZERO * 0.9, _TO * 1.1)
    axes.set_xlabel("willingness to pay (cost weight)")
    axes.set_title(title)
    axes.grid()


def _most_asked(report: Report, routers: Sequence[PolicyResult]) -> list[str]:
    """Return the experts to be told apart, the most asked first."""
    share = np.array([point.share for p in routers for point in _drawn(p.curve)])
    order = np.argsort(-share.mean(axis=0), kind="stable")
    return [report.experts[i] for i in order if share[:, i].max() >= _LEAST][:_SHOWN]


def _stack(
    axes: Any, policy: PolicyResult, experts: Sequence[str], fills: Mapping[str, tuple[str, str]]
) -> None:
    at = _drawn(policy.curve)
    share = np.array([p.share for p in at]).T
    edges = np.array([max(p.weight, _ZERO) for p in at])
    rows = [share[experts.index(name)] for name in fills]
    names, looks_ = [shown(name) for name in fills], list(fills.values())
    if len(experts) > len(fills):
        rows.append(share.sum(axis=0) - sum(rows))
        names.append(f"{len(experts) - len(fills)} more")
        looks_.append(_REST)
    areas = axes.stackplot(
        edges, rows, step="mid", colors=[color for color, _ in looks_], labels=names,
        edgecolor=PAPER, linewidth=0.7,
    )  # fmt: skip
    for area, (_, hatch) in zip(areas, looks_, strict=True):
        area.set_hatch(hatch)
    _weights(axes, f"Who is asked by {shown(policy.name)}")
    axes.grid(visible=False)
    axes.set_xlim(_ZERO, edges[-1])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
