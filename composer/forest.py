"""Draw what holds over refits: differences on other splits, unseen categories, newcomers."""

from collections.abc import Mapping, Sequence
from typing import Any

from composer.canvas import INK, MUTED, PAPER, Figure, Look, canvas, looks, plain, shown
from composer.refits import ColdStart, Refit, StudyResult
from composer.report import Report
from composer.statistics import Estimate, Interval, McNemar

__all__ = ["paired_counts", "study_forest"]

_MOST = 24  # rows of one kind that are drawn; all of them stand in the report
_RIVALS = ("best single", "category table", "word ridge")
_Z = 1.959963984540054


def study_forest(report: Report) -> Figure | None:
    """Draw differences per split and left-out category, and cold starts; None without a study."""
    found = report.study
    if found is None or not (found.refits or found.cold_starts):
        return None
    look = looks(report)
    rivals = _rivals(found.refits)
    rows = _rows(found)
    cold = found.cold_starts[:_MOST]
    row = 0.2 + 0.08 * len({r.router for r in found.refits})
    heights = [h for h in (0.9 + row * len(rows), 0.9 + 0.27 * len(cold)) if h > 0.9]
    with plain():
        figure = canvas(max(7.5, 3.2 + 2.9 * len(rivals)), 0.6 + sum(heights))
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part in parts:
            part.set_facecolor("none")
        if rows:
            panels = parts[0].subplots(1, len(rivals), sharey=True, squeeze=False)[0]
            for axes, rival in zip(panels, rivals, strict=True):
                _differences(axes, rival, rows, found, look)
            panels[0].set_yticks(range(len(rows)), [_row_name(*row) for row in rows])
            panels[0].set_ylim(len(rows) - 0.4, -0.6)
            _legend(parts[0], {r.router: look[r.router] for r in found.refits})
        if cold:
            _cold_starts(parts[-1].subplots(), cold, look)
    return figure


def paired_counts(found: McNemar, queries: int) -> Interval:
    """Return the 95 % interval of (wins - losses) / queries by its normal approximation.

    Its variance is (w + l - (w - l)^2 / n) / n^2: Agresti, "Categorical Data Analysis", 3rd
    edition, section 11.1. For grades between 0 and 1 a win counts whole, so it is too wide.
    """
    both, net = found.wins + found.losses, found.wins - found.losses
    half = _Z * max(0.0, both - net**2 / queries) ** 0.5 / queries
    return Interval(net / queries - half, net / queries + half)


Row = tuple[str, str]  # kind of the split, and what was held out; an empty one is the mean


def _rows(found: StudyResult) -> list[Row]:
    rows: list[Row] = []
    for kind in ("random", "category"):
        held_out = list(dict.fromkeys(r.held_out for r in found.refits if r.kind == kind))
        rows += [(kind, name) for name in held_out[:_MOST]]
        rows += [(kind, "")] * (len(held_out) > 1)
    return rows


def _rivals(refits: Sequence[Refit]) -> list[str]:
    """Return the policies to compare with: the best single expert, and the pinned one if any."""
    if not refits:
        return []
    there = refits[0].differences
    pinned = [name for name in there if name.startswith("pinned ")]
    return [*(name for name in _RIVALS if name in there), *pinned][:3] if not pinned else [
        "best single", *pinned, *(name for name in _RIVALS[1:2] if name in there)
    ]  # fmt: skip


def _row_name(kind: str, held_out: str) -> str:
    if not held_out:
        return "mean of random splits" if kind == "random" else "mean of left-out categories"
    return shown(held_out) if kind == "random" else f"without {shown(held_out)}"


def _differences(
    axes: Any, rival: str, rows: Sequence[Row], found: StudyResult, look: Mapping[str, Look]
) -> None:
    routers = list(dict.fromkeys(r.router for r in found.refits))
    for i, name in enumerate(routers):
        shift = (i - (len(routers) - 1) / 2) * min(0.22, 0.7 / len(routers))
        for y, (kind, held_out) in enumerate(rows):
            if held_out:
                _one(axes, y + shift, _refit(found, kind, held_out, name), rival, look[name])
            else:
                _mean(axes, y + shift, found, kind, name, rival, look[name])
    for y, (_, held_out) in enumerate(rows):
        if not held_out:
            axes.axhspan(y - 0.5, y + 0.5, color=MUTED, alpha=0.12, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_title(f"minus {shown(rival, 26)}")
    axes.set_xlabel("difference in mean quality")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x")
    axes.margins(x=0.06)


def _one(axes: Any, y: float, refit: Refit | None, rival: str, look: Look) -> None:
    if refit is None or rival not in refit.differences:
        return
    value = refit.differences[rival]
    if rival == "best single":
        around = paired_counts(refit.mcnemar, refit.queries)
        half = (around.high - around.low) / 2
        axes.plot([value - half, value + half], [y, y], color=look.color, linewidth=1)
    is_clear = rival == "best single" and refit.verdict != "not significant"
    axes.plot(
        [value], [y], look.marker, color=look.color, markersize=6,
        markerfacecolor=look.color if is_clear else PAPER,
    )  # fmt: skip


def _mean(
    axes: Any, y: float, found: StudyResult, kind: str, router: str, rival: str, look: Look
) -> None:
    for summary in found.summaries:
        if (summary.kind, summary.router) == (kind, router) and rival in summary.differences:
            mean: Estimate = summary.differences[rival]
            axes.plot(
                [mean.interval.low, mean.interval.high], [y, y], color=look.color, linewidth=2.6
            )
            is_clear = mean.interval.low > 0 or mean.interval.high < 0
            axes.plot(
                [mean.value], [y], look.marker, color=look.color, markersize=9,
                markerfacecolor=look.color if is_clear else PAPER,
            )  # fmt: skip


def _refit(found: StudyResult, kind: str, held_out: str, router: str) -> Refit | None:
    same = (r for r in found.refits if (r.kind, r.held_out, r.router) == (kind, held_out, router))
    return next(same, None)


def _legend(part: Any, look: Mapping[str, Look]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=each.color, marker=each.marker, label=shown(name), linestyle="-")
        for name, each in look.items()
    ]
    part.legend(
        handles=entries, loc="outside upper left", ncols=min(4, len(entries)),
        title="Filled: significant. Lines: 95 % intervals.", alignment="left",
    )  # fmt: skip


def _cold_starts(axes: Any, cold: Sequence[ColdStart], look: Mapping[str, Look]) -> None:
    for y, each in enumerate(cold):
        color = look[each.router].color
        gains = (each.prior - each.full, each.probed - each.full)
        axes.annotate(
            "", (gains[1], y), (gains[0], y),
            arrowprops={"arrowstyle": "->", "color": color, "lw": 1.2, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
        axes.plot(gains[:1], [y], "o", color=color, markerfacecolor=PAPER, markersize=9)
        axes.plot(gains[1:], [y], "o", color=color, markersize=6)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(
        range(len(cold)), [f"{shown(c.expert, 26)} ({shown(c.router, 16)})" for c in cold]
    )
    axes.set_ylim(len(cold) - 0.4, -0.6)
    axes.set_xlabel("quality, less that of the router that had all outcomes of the expert")
    axes.set_title(
        "An expert that training did not see. Hollow: known by its prior; "
        f"filled: after {cold[0].probes} probes."
    )
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.grid(axis="x")
