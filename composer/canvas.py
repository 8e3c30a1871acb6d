"""What all pictures share: how they look, how names are shown, how they are written.

Needs the extra ``plots``. Figures are made without a display and without global state; every
picture is written as PNG and as SVG. Colours are those of Okabe and Ito, "Color Universal Design"
(2008), https://jfly.uni-koeln.de/color/, which colour-blind people can tell apart, and no two
things differ by colour alone.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from composer.report import Report
from experts_registry.errors import DataError, PluginError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as error:
    raise PluginError(
        "plots: matplotlib is missing; run: pip install 'expert-composer[plots]'"
    ) from error

__all__ = [
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "VERMILION",
    "Figure",
    "Look",
    "canvas",
    "inline_svg",
    "looks",
    "plain",
    "save",
    "shown",
]

INK, MUTED, GRID, PAPER = "#222222", "#6b6b6b", "#dddddd", "#ffffff"
_ORANGE, _SKY, _GREEN, _BLUE = "#e69f00", "#56b4e9", "#009e73", "#0072b2"
VERMILION, _PURPLE = "#d55e00", "#cc79a7"
# In a page these are variables of its style sheet, so that a picture can be light and dark.
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    _BLUE: "--blue",
    _GREEN: "--green",
    VERMILION: "--vermilion",
}
_STYLE = {
    "text.parse_math": False,  # a name may hold dollars
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.facecolor": PAPER,
    "font.size": 9,
    "grid.color": GRID,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "xtick.color": INK,
    "ytick.color": INK,
}
_UNDATED: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a policy is drawn."""

    color: str
    marker: str
    line: Any = "-"
    width: float = 1.2
    is_filled: bool = False


_ROUTERS = (
    Look(color=_BLUE, marker="*", line="-", width=2.2, is_filled=True),
    Look(color=_GREEN, marker="P", line=(0, (6, 1.5)), width=2.0, is_filled=True),
    Look(color=VERMILION, marker="h", line=(0, (3, 1)), width=2.0, is_filled=True),
    Look(color=_PURPLE, marker="d", line=(0, (4, 1, 1, 1)), width=2.0, is_filled=True),
)
_POLICIES = {
    "best single": Look(color=INK, marker="D", line=(0, (1, 1)), width=1.6),
    "category table": Look(color=_ORANGE, marker="s", line=(0, (5, 2)), width=1.6),
    "prompt length": Look(color=_SKY, marker="v", line=(0, (2, 2))),
    "word ridge": Look(color=_PURPLE, marker="p", line=(0, (6, 2, 1, 2))),
    "random": Look(color=MUTED, marker="x"),
    "category oracle": Look(color=_ORANGE, marker="<", line=(0, (1, 3))),
    "oracle": Look(color=MUTED, marker="^", line=(0, (1, 3)), width=1.6),
    "cheapest correct oracle": Look(color=MUTED, marker=">", line=(0, (1, 4))),
}
_BY_KIND = {
    "baseline": Look(color=VERMILION, marker="8", line=(0, (1, 2))),
    "control": Look(color=MUTED, marker="1", line=(0, (1, 1.5))),
    "bound": Look(color=MUTED, marker="^", line=(0, (1, 3))),
}


def looks(report: Report) -> dict[str, Look]:
    """Return how each policy is drawn: the same in every picture of the report."""
    routers = [policy.name for policy in report.policies if policy.kind == "router"]
    found = {name: _ROUTERS[i % len(_ROUTERS)] for i, name in enumerate(routers)}
    for policy in report.policies:
        if policy.kind != "router":
            found[policy.name] = _POLICIES.get(policy.name, _BY_KIND[policy.kind])
    return found


def shown(name: str, width: int = 30) -> str:
    """Return a name that can be drawn: printable, not too long, never hidden from a legend."""
    text = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(none)"
    if len(text) > width:
        half = (width - 1) // 2
        text = f"{text[: width - 1 - half]}…{text[-half:]}"
    return f" {text}" if text.startswith("_") else text


@contextmanager
def plain() -> Iterator[None]:
    """Draw in our style, whatever the user's own is."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A PNG cannot show a script that its font lacks; the SVG keeps the text.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def canvas(width: float, height: float) -> Figure:
    """Return an empty picture; inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write PNG and SVG, whatever the ending of ``path``; the text of an SVG stays text.

    Raises:
        DataError: the folder cannot be written.
    """
    paths = [Path(path).with_suffix(ending) for ending in _UNDATED]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with plain(), mpl.rc_context({"svg.hashsalt": paths[0].stem}):
            for target in paths:
                figure.savefig(target, dpi=160, metadata=_UNDATED[target.suffix])
    except OSError as error:
        raise DataError(
            f"{paths[0]}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return paths


def inline_svg(figure: Figure, name: str) -> str:
    """Return a picture as an element of a page, in the colours of the page.

    Args:
        figure: to be shown.
        name: of the picture in the page; it keeps identifiers apart.
    """
    written = StringIO()
    with plain(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata=_UNDATED[".svg"])
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<style .*?</style>", "", text, count=1, flags=re.DOTALL)  # is for all elements
    width = figure.get_figwidth() * 96  # as large as it was drawn, and not much smaller
    size = f"width:100%;height:auto;max-width:{width:.0f}px;min-width:{0.7 * width:.0f}px"
    text = re.sub(
        r'(<svg [^>]*?) width="[^"]*"', rf'\1 aria-hidden="true" style="{size}"', text, count=1
    )
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'((?:\sid=")|(?:href="#)|(?:url\(#))', rf"\g<1>{name}-", text)
    for color, variable in _VARIABLES.items():
        text = re.sub(rf'((?:fill|stroke): ){color}(?=[;"])', rf"\1var({variable})", text)
    return text
