"""Draw what an evaluation found: quality against cost, and quality by category.

Needs the extra ``plots``. Figures are made without a display and without global state; every
picture is written as PNG and as SVG. Colours are those of Okabe and Ito, which colour-blind
people can tell apart, and no two things differ by colour alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from composer.report import CategoryResult, Point, PolicyResult, Report
from experts_registry.errors import DataError, PluginError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Bbox
except ImportError as error:
    raise PluginError(
        "plots: matplotlib is missing; run: pip install 'expert-composer[plots]'"
    ) from error

__all__ = ["category_heatmap", "draw_report", "quality_cost"]

_BLACK, _BLUE, _GREEN, _GREY = "#000000", "#0072B2", "#009E73", "#666666"
_BASELINES = {  # policy: colour and marker
    "best single": ("#D55E00", "D"),
    "category table": ("#CC79A7", "s"),
    "prompt length": ("#56B4E9", "v"),
    "random": ("#999999", "X"),
    "oracle": ("#E69F00", "^"),
    "cheapest correct oracle": ("#009E73", "<"),
}
_UNITS = {"usd": "USD", "B params": "billion active parameters", "s": "seconds"}
_UNDATED: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}}
_LOG_FROM = 20  # ratio of the dearest to the cheapest from which the cost axis is logarithmic


def draw_report(report: Report, path: str | Path) -> list[Path]:
    """Draw both pictures: ``path`` and, beside it, ``<name>-categories``.

    Raises:
        DataError: the folder cannot be written.
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise DataError(f"{path}: is a folder; name a picture, for example quality-cost.png")
    beside = path.with_name(f"{path.stem}-categories{path.suffix}")
    return [*quality_cost(report, path), *category_heatmap(report, beside)]


def quality_cost(report: Report, path: str | Path) -> list[Path]:
    """Draw experts, baselines and the router's curve over its cost weights.

    A point whose cost is not known is left out; where none is, all stand in one column.
    """
    is_known = any(p.cost is not None for p in report.policies)
    report = report if is_known else _in_one_column(report)
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.subplots()
    router, *baselines = report.policies
    _policy(axes, router, _BLUE, "*", size=17)
    curve, maps, experts = (_known(report, kind) for kind in ("router", "mapping", "expert"))
    _line(axes, curve, _BLUE, "o-", 1.8, "router at other cost weights")
    _line(axes, maps, _GREEN, ".:", 1.8, "its category maps by budget")
    for i, policy in enumerate(baselines):  # smaller and smaller: they may coincide
        _policy(axes, policy, *_BASELINES.get(policy.name, (_GREY, "P")), size=max(5, 11 - i))
    _line(axes, experts, _BLACK, "o", 0, "one expert")
    _dress(axes, report, is_known=is_known)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.draw_without_rendering()  # fixes the layout, so that labels can be measured
    taken = [*_along(axes, curve), *_along(axes, maps), *_bars(axes, report.policies)]
    _label(axes, experts, taken)
    return _save(figure, path)


def category_heatmap(report: Report, path: str | Path) -> list[Path]:
    """Draw mean quality by category and expert; a frame shows where the router mostly goes."""
    rows, experts = report.categories, report.experts
    figure = Figure(
        figsize=(3.4 + 1.15 * (len(experts) + 1), 1.9 + 0.42 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    values = np.array([[*(r.quality[e] for e in experts), r.router] for r in rows])
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        note = _share(rows[y], experts[x]) if x < len(experts) else ""
        color = "white" if value < 0.55 else "black"
        axes.text(x, y, f"{value:.2f}{note}", ha="center", va="center", color=color, fontsize=9)
    for y, row in enumerate(rows):
        usual = max(experts, key=lambda e: row.chosen[e])
        axes.add_patch(_frame(experts.index(usual), y))
    axes.axvline(len(experts) - 0.5, color="white", linewidth=5)
    axes.set_xticks(range(len(experts) + 1), [*experts, "router"], rotation=25, ha="right")
    axes.set_yticks(range(len(rows)), [_row_name(row) for row in rows])
    axes.set_title(
        "Mean quality by category; framed: where the router\nmostly sends it, and how often",
        fontsize=11,
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="mean quality (0 to 1)")
    return _save(figure, path)


def _dress(axes: Any, report: Report, *, is_known: bool) -> None:
    costs = [p.cost for p in report.policies if p.cost is not None]
    costs += [p.cost for p in report.points if p.cost is not None]
    if costs and min(costs) > 0 and max(costs) / min(costs) > _LOG_FROM:
        axes.set_xscale("log")
    axes.margins(x=0.1, y=0.08)
    axes.set_xlabel(_cost_label(report.cost_unit, is_known=is_known))
    axes.set_ylabel("mean quality over categories (0 to 1)")
    axes.set_title(f"Quality against cost, {report.queries} held-out queries, 95 % intervals")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _in_one_column(report: Report) -> Report:
    return replace(
        report,
        policies=tuple(replace(p, cost=0.0) for p in report.policies),
        points=tuple(replace(p, cost=0.0) for p in report.points),
    )


def _known(report: Report, kind: str) -> list[Point]:
    """Return the points of a kind whose cost is known, by cost."""
    known = (p for p in report.points if p.kind == kind and p.cost is not None)
    return sorted(known, key=lambda p: (p.cost, p.quality))


def _line(
    axes: Any, points: Sequence[Point], color: str, style: str, width: float, label: str
) -> None:
    if points:
        cost, quality = [p.cost for p in points], [p.quality for p in points]
        axes.plot(
            cost,
            quality,
            style,
            color=color,
            linewidth=width,
            markersize=5,
            label=label,
            zorder=2 if width else 4,
        )


def _policy(axes: Any, policy: PolicyResult, color: str, marker: str, *, size: float) -> None:
    if policy.cost is None:
        return
    low, high = policy.interval.low, policy.interval.high
    # A bootstrap interval need not hold its mean, and a bar cannot be negative.
    bar = [[max(0.0, policy.quality - low)], [max(0.0, high - policy.quality)]]
    axes.errorbar(
        [policy.cost], [policy.quality], yerr=bar, fmt=marker, color=color, markersize=size,
        markerfacecolor=color if marker == "*" else "none", markeredgewidth=1.6, elinewidth=1.3,
        capsize=3, label=policy.name, zorder=3,
    )  # fmt: skip


def _cost_label(unit: str, *, is_known: bool) -> str:
    if not is_known:
        return "mean cost of a query: not known; give the experts prices or active_params"
    return f"mean cost of a query ({_UNITS.get(unit, unit)})" if unit else "mean cost of a query"


def _label(axes: Any, points: Sequence[Point], taken: list[Bbox]) -> None:
    """Write each name beside its point where it covers least of what is drawn already."""
    inside = axes.get_window_extent()
    taken += (box for point in points for box in _along(axes, [point]))
    for point in sorted(points, key=lambda p: -p.quality):
        tried: list[tuple[int, int, Any, Bbox]] = []
        for place in _places():
            text = _written(axes, point, *place)
            box = text.get_window_extent()
            is_outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1)
            tried.append((sum(map(box.overlaps, taken)) + 20 * is_outside, len(tried), text, box))
            if tried[-1][0] == 0:
                break
        best = min(tried)
        for *_, text, _box in tried:
            if text is not best[2]:
                text.remove()
        taken.append(best[3])


def _places() -> Iterator[tuple[float, float, str]]:
    """Yield offsets in points and the alignment that goes with each, the nearest first."""
    for dy in (0, 10, -10, 14, -14, 22, -22, 34, -34, 48, -48, 64, -64):
        yield 9, dy, "left"
        yield -9, dy, "right"
        if abs(dy) > 10:
            yield 0, dy, "center"


def _written(axes: Any, point: Point, dx: float, dy: float, align: str) -> Any:
    return axes.annotate(
        point.label, (point.cost, point.quality), (dx, dy), textcoords="offset points", ha=align,
        va="center", fontsize=9, zorder=5,
        arrowprops={"arrowstyle": "-", "color": _GREY, "lw": 0.6} if abs(dy) > 14 else None,
        bbox={"boxstyle": "round,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def _along(axes: Any, points: Sequence[Point]) -> list[Bbox]:
    """Return small boxes, in pixels, along the line through these points."""
    if not points:
        return []
    at = axes.transData.transform([(p.cost, p.quality) for p in points])
    steps = np.linspace(0, len(at) - 1, 12 * len(at) - 11)
    x, y = (np.interp(steps, range(len(at)), column) for column in at.T)
    return [Bbox.from_extents(a - 4, b - 4, a + 4, b + 4) for a, b in zip(x, y, strict=True)]


def _bars(axes: Any, policies: Sequence[PolicyResult]) -> list[Bbox]:
    """Return the boxes, in pixels, that markers and error bars fill."""
    boxes = []
    for policy in policies:
        if policy.cost is not None:
            ends = [(policy.cost, policy.interval.low), (policy.cost, policy.interval.high)]
            (x, low), (_, high) = axes.transData.transform(ends)
            boxes.append(Bbox.from_extents(x - 5, low, x + 5, high))
    return boxes


def _share(row: CategoryResult, expert: str) -> str:
    is_usual = expert == max(row.chosen, key=lambda e: row.chosen[e])
    return f"\nsent {row.chosen[expert]:.0%}" if is_usual else ""


def _row_name(row: CategoryResult) -> str:
    return f"{row.category or '(none)'}  (n = {row.queries})"


def _frame(x: int, y: int) -> Rectangle:
    return Rectangle(
        (x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=2.5
    )


def _save(figure: Figure, path: str | Path) -> list[Path]:
    """Write PNG and SVG, whatever the ending of ``path``; the text of an SVG stays text."""
    stem = Path(path).with_suffix("")
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".svg")]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "expert-composer"}):
            for target in paths:
                figure.savefig(target, dpi=160, metadata=_UNDATED[target.suffix])
    except OSError as error:
        raise DataError(
            f"{paths[0]}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return paths
