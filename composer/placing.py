"""Write names beside points where they cover least of what is drawn already."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox

from composer.canvas import MUTED, PAPER, shown
from composer.report import Point

__all__ = ["along", "bars", "label_points"]

Corner = tuple[float, float]


def label_points(axes: Any, points: Sequence[Point], taken: Sequence[Bbox]) -> None:
    """Write the name of each point, the best first; layout must be fixed already.

    Args:
        axes: that the points are drawn in.
        points: with known costs.
        taken: boxes, in pixels, that are better left free.
    """
    inside = axes.get_window_extent()
    taken = [*taken, *(box for p in points for box in along(axes, [(p.cost or 0.0, p.quality)]))]
    for point in sorted(points, key=lambda p: -p.quality):
        tried: list[tuple[int, int, Any, Bbox]] = []
        for place in _places():
            text = _written(axes, point, *place)
            box = text.get_window_extent()
            is_outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1)
            is_outside |= not (inside.y0 <= box.y0 and box.y1 <= inside.y1)
            tried.append((sum(map(box.overlaps, taken)) + 20 * is_outside, len(tried), text, box))
            if tried[-1][0] == 0:
                break
        best = min(tried)
        for *_, text, _box in tried:
            if text is not best[2]:
                text.remove()
        taken.append(best[3])


def along(axes: Any, corners: Sequence[Corner]) -> list[Bbox]:
    """Return small boxes, in pixels, along the line through these points."""
    if not corners:
        return []
    at = axes.transData.transform(corners)
    steps = np.linspace(0, len(at) - 1, 12 * len(at) - 11)
    x, y = (np.interp(steps, range(len(at)), column) for column in at.T)
    return [Bbox.from_extents(a - 4, b - 4, a + 4, b + 4) for a, b in zip(x, y, strict=True)]


def bars(axes: Any, spans: Sequence[tuple[float, float, float]]) -> list[Bbox]:
    """Return the boxes, in pixels, that vertical bars (x, low, high) fill."""
    boxes = []
    for x, low, high in spans:
        (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
        boxes.append(Bbox.from_extents(left - 5, bottom, left + 5, top))
    return boxes


def _places() -> Iterator[tuple[float, float, str]]:
    """Yield offsets in points and the alignment that goes with each, the nearest first."""
    for dy in (0, 10, -10, 14, -14, 22, -22, 34, -34, 48, -48, 64, -64):
        yield 8, dy, "left"
        yield -8, dy, "right"
        if abs(dy) > 10:
            yield 0, dy, "center"


def _written(axes: Any, point: Point, dx: float, dy: float, align: str) -> Any:
    return axes.annotate(
        shown(point.label, 28), (point.cost, point.quality), (dx, dy), textcoords="offset points",
        ha=align, va="center", fontsize=8, zorder=5,
        arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.6} if abs(dy) > 14 else None,
        bbox={"boxstyle": "round,pad=0.05", "fc": PAPER, "ec": "none", "alpha": 0.75},
    )  # fmt: skip
