"""Draw what an evaluation found: quality against cost, quality by category, and all the rest.

Beside the quality-cost picture stands the area under each hull with its interval, which also says
which line is which. Needs the extra ``plots``.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from composer.canvas import (
    INK,
    VERMILION,
    Figure,
    Look,
    canvas,
    looks,
    plain,
    save,
    shown,
)
from composer.diagnostics import calibration, regret, who_is_asked
from composer.forest import study_forest
from composer.placing import along, bars, label_points
from composer.report import CategoryResult, Point, PolicyResult, Report
from composer.statistics import FEWEST
from experts_registry.errors import DataError

__all__ = ["PICTURES", "category_heatmap", "draw_report", "quality_cost"]

_UNITS = {"usd": "USD", "B params": "billion active parameters", "s": "seconds"}
_LOG_FROM = 20  # ratio of the dearest to the cheapest from which the cost axis is logarithmic
_NAMED = 12  # experts that can all be named in the picture, or whose cells have room for notes
_BARRED = ("best single", "category table", "oracle")  # beside the routers; more would not be read


def draw_report(report: Report, folder: str | Path) -> list[Path]:
    """Draw every picture for which the report has figures, as PNG and SVG, into a folder.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.is_file():
        raise DataError(f"{folder}: is a file; name a folder for the pictures")
    written: list[Path] = []
    for name, draw in PICTURES.items():
        if (figure := draw(report)) is not None:
            written += save(figure, folder / f"{name}.png")
    return written


def quality_cost(report: Report) -> Figure:
    """Draw experts and every policy's hull, and the area under it.

    A point whose cost is not known is left out; where none is, only qualities are drawn.
    """
    with plain():
        found = [p for p in report.policies if p.tradeoff is not None or p.cost is not None]
        height = 1.8 + 0.24 * len(report.policies)
        figure = canvas(*((11.5, max(5.0, height)) if found else (7.5, height)))
        if not found:
            _ranking(figure.subplots(), report, looks(report))
            return figure
        axes, ranking = figure.subplots(1, 2, width_ratios=(2.1, 1))
        _ranking(ranking, report, looks(report))
        _hulls(axes, report, looks(report))
        figure.draw_without_rendering()  # fixes the layout, so that labels can be measured
        spans = [(p.cost or 0.0, p.interval.low, p.interval.high) for p in _barred(report)]
        taken = [*bars(axes, spans)]
        for policy in report.policies[: len(report.routers)]:
            taken += along(axes, [(p.cost, p.quality) for p in policy.curve if p.cost is not None])
        label_points(axes, _worth_a_name(report), taken)
    return figure


def category_heatmap(report: Report) -> Figure:
    """Draw the mean quality of every expert in every category, and where queries are sent."""
    rows, experts = report.categories, _by_quality(report)
    many = len(experts) > _NAMED
    width, height = (0.46, 0.32) if many else (1.05, 0.46)
    with plain():
        longest = max(len(shown(e, 32)) for e in experts)
        figure = canvas(
            max(6.5, 3.6 + width * (len(experts) + 1)), 1.4 + 0.055 * longest + height * len(rows)
        )
        axes = figure.subplots()
        values = np.array([[*(r.quality[e] for e in experts), r.router] for r in rows])
        x = np.append(np.arange(len(experts) + 1), len(experts) + 1.3) - 0.5
        x[-2:] += (0.15, 0)  # a gap before the router
        mesh = _cells(axes, values, len(experts))
        for (y, at), value in np.ndenumerate(values):
            note = "" if many or at == len(experts) else _share(rows[y], experts[at])
            _number(axes, at + 0.3 * (at == len(experts)), y, value, note, small=many)
        for y, row in enumerate(rows):
            usual = max(experts, key=lambda e: row.chosen[e])
            _frame(axes, experts.index(usual), y)
        _name_cells(axes, rows, experts, shown(report.routers[0].name, 32))
        axes.set_title(
            "Mean quality by category, the best expert on the left.\n"
            "Framed: where the router mostly sends the category"
            + ("." if many else ", and how often.")
        )
        figure.colorbar(mesh, ax=axes, label="mean quality (0 to 1)", pad=0.02, aspect=30)
    return figure


PICTURES: Mapping[str, Callable[[Report], Figure | None]] = {
    "quality-cost": quality_cost,
    "categories": category_heatmap,
    "calibration": calibration,
    "regret": regret,
    "asked": who_is_asked,
    "study": study_forest,
}


# -- quality against cost --------------------------------------------------------------------------


def _hulls(axes: Any, report: Report, look: Mapping[str, Look]) -> None:
    is_log = _is_wide(report)
    _cost_axis(axes, report.cost_unit, is_log=is_log)
    for policy in report.policies:
        if policy.tradeoff is not None:
            _hull(axes, policy.tradeoff.hull, look[policy.name], is_log=is_log)
    for router in report.routers:
        maps = sorted((p.cost, p.quality) for p in router.points if _is_map(p))
        if maps:
            axes.plot(*zip(*maps, strict=True), ".", color=look[router.name].color, markersize=4)
    for barred in _barred(report):
        _bar(axes, barred, look[barred.name])
    experts = [(p.cost, p.quality) for p in report.experts_at if p.cost is not None]
    axes.plot(
        [x for x, _ in experts], [y for _, y in experts], "o", color=INK, markersize=4.5, zorder=4
    )
    axes.margins(x=0.1, y=0.08)
    axes.set_ylabel("mean quality over categories (0 to 1)")
    axes.set_title(
        f"Quality against cost on {report.queries} held-out queries.\n"
        "Dots: single experts. Lines: hulls. Markers: as used, with 95 % intervals."
    )
    axes.grid()


def _hull(axes: Any, corners: Sequence[tuple[float, float]], look: Look, *, is_log: bool) -> None:
    """Draw a hull; its edges are mixtures, which a logarithmic axis bends."""
    x, y = np.array(corners).T
    between = np.geomspace if is_log else np.linspace
    steps = [between(a, b, 12) for a, b in pairwise(x) if b > a]
    dense = np.concatenate(steps) if steps else x
    axes.plot(
        dense, np.interp(dense, x, y), color=look.color, linestyle=look.line, linewidth=look.width,
        zorder=3 if look.is_filled else 2,
    )  # fmt: skip


def _bar(axes: Any, policy: PolicyResult, look: Look) -> None:
    low, high = policy.interval.low, policy.interval.high
    # A bootstrap interval need not hold its mean, and a bar cannot be negative.
    bar = [[max(0.0, policy.quality - low)], [max(0.0, high - policy.quality)]]
    axes.errorbar(
        [policy.cost], [policy.quality], yerr=bar, fmt=look.marker, color=look.color, capsize=3,
        markersize=13 if look.marker == "*" else 8, elinewidth=1.2, markeredgewidth=1.5,
        markerfacecolor=look.color if look.is_filled else "none", zorder=5,
    )  # fmt: skip


def _ranking(axes: Any, report: Report, look: Mapping[str, Look]) -> None:
    """Draw the area under each hull, or quality where there is none, with its interval."""
    is_area = any(p.tradeoff is not None for p in report.policies)
    policies = [p for p in report.policies if p.tradeoff is not None or not is_area]
    for y, policy in enumerate(policies):
        value, low, high = policy.quality, policy.interval.low, policy.interval.high
        if policy.tradeoff is not None:
            area = policy.tradeoff.aiq
            value, low, high = area.value, area.interval.low, area.interval.high
        drawn = look[policy.name]
        if report.queries >= FEWEST:  # an interval of so few would only mislead
            axes.plot(
                [low, high], [y, y], color=drawn.color, linestyle=drawn.line, linewidth=drawn.width
            )
        axes.plot(
            [value], [y], drawn.marker, color=drawn.color, markersize=8, markeredgewidth=1.4,
            markerfacecolor=drawn.color if drawn.is_filled else "none",
        )  # fmt: skip
        axes.text(1.02, y, f"{value:.3f}", transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(policies)), [shown(p.name, 32) for p in policies])
    axes.set_ylim(len(policies) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_title(
        "AIQ: mean quality over all budgets,\nwith 95 % intervals"
        if is_area
        else f"Mean quality on {report.queries} held-out queries"
        + (", with 95 % intervals" if report.queries >= FEWEST else ": too few for intervals")
    )
    if not is_area and all(p.cost is None for p in report.policies):
        axes.set_xlabel("cost is not known; give the experts prices or active_params")


def _barred(report: Report) -> list[PolicyResult]:
    """Return the policies that are drawn with an interval at the point where they are used."""
    return [
        p for p in report.policies
        if p.cost is not None and (p.kind == "router" or p.name in _BARRED)
    ]  # fmt: skip


def _worth_a_name(report: Report) -> list[Point]:
    """Return the experts whose names fit: all, or those that are used or on the frontier."""
    known = [p for p in report.experts_at if p.cost is not None]
    if len(known) <= _NAMED:
        return known
    dearest = max(known, key=lambda p: p.cost or 0.0)
    front = {
        p.label for p in known
        if not any(o.quality > p.quality and (o.cost or 0.0) <= (p.cost or 0.0) for o in known)
    }  # fmt: skip
    used = {
        report.experts[i]
        for policy in report.policies[: len(report.routers)]
        for i, share in enumerate(policy.curve[0].share if policy.curve else ())
        if share > 0.05
    }
    return [p for p in known if p.label in front | used | {dearest.label}]


def _is_wide(report: Report) -> bool:
    costs = [p.cost for p in report.policies if p.cost is not None]
    costs += [p.cost for p in report.experts_at if p.cost is not None]
    return bool(costs) and min(costs) > 0 and max(costs) / min(costs) > _LOG_FROM


def _is_map(point: Point) -> bool:
    return point.kind == "mapping" and point.cost is not None


def _cost_axis(axes: Any, unit: str, *, is_log: bool) -> None:
    """Name the axis of costs; money is told for a thousand queries, which people can imagine."""
    many = 1000 if unit == "usd" else 1
    axes.set_xlabel(
        f"mean cost of {'1,000 queries' if many > 1 else 'a query'}"
        + (f" ({_UNITS.get(unit, unit)})" if unit else "")
    )
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * many:.5g}"))


# -- quality by category ---------------------------------------------------------------------------


def _by_quality(report: Report) -> list[str]:
    rows = report.categories
    return sorted(report.experts, key=lambda e: -sum(row.quality[e] for row in rows))


def _cells(axes: Any, values: Any, experts: int) -> Any:
    edges = np.arange(experts + 1) - 0.5
    rows = np.arange(len(values) + 1) - 0.5
    style = {"cmap": "cividis", "vmin": 0, "vmax": 1, "edgecolors": "none"}
    axes.pcolormesh(edges, rows, values[:, :experts], **style)
    mesh = axes.pcolormesh([experts - 0.2, experts + 0.8], rows, values[:, experts:], **style)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return mesh


def _number(axes: Any, x: float, y: float, value: float, note: str, *, small: bool) -> None:
    # Not quite black and white: those two follow the page.
    color = "#fefefe" if value < 0.45 else "#111111"
    text = f"{value:.2f}".removeprefix("0") if small and value < 1 else f"{value:.2f}"
    axes.text(x, y, text + note, ha="center", va="center", color=color, fontsize=9)


def _frame(axes: Any, x: int, y: int) -> None:
    left, right, top, bottom = x - 0.46, x + 0.46, y - 0.44, y + 0.44
    axes.plot(
        [left, right, right, left, left], [top, top, bottom, bottom, top], color=VERMILION,
        linewidth=2, solid_joinstyle="miter",
    )  # fmt: skip


def _name_cells(
    axes: Any, rows: Sequence[CategoryResult], experts: Sequence[str], router: str
) -> None:
    at = [*range(len(experts)), len(experts) + 0.3]
    names = [*(shown(e, 32) for e in experts), router]
    steep = len(experts) > _NAMED or max(map(len, names)) > 14
    axes.set_xticks(
        at, names, rotation=55 if steep else 0, ha="right" if steep else "center",
        rotation_mode="anchor" if steep else "default",
    )  # fmt: skip
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.set_yticks(range(len(rows)), [f"{shown(r.category)}  (n = {r.queries})" for r in rows])


def _share(row: CategoryResult, expert: str) -> str:
    is_usual = expert == max(row.chosen, key=lambda e: row.chosen[e])
    return f"\nsent {row.chosen[expert]:.0%}" if is_usual else ""
