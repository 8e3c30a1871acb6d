"""Write what an evaluation found as one page that needs nothing else: no network, no fonts.

Pictures are inline SVG in the colours of the page, light or dark; all that comes from data is
escaped, and a content policy lets no script run but the one that sorts tables.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from composer.canvas import inline_svg
from composer.conclusions import conclude, hangs_on_few, single_expert
from composer.phrases import compared, money, money_unit, number, percent, signed, spread, told
from composer.plots import PICTURES
from composer.report import Interval, Report, RouterResult
from composer.statistics import FEWEST, verdict, wilson
from experts_registry.errors import DataError, PluginError

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise PluginError(
        "page: jinja2 is missing; run: pip install 'expert-composer[plots]'"
    ) from error

__all__ = ["render_page", "write_page"]


def write_page(report: Report, path: str | Path, *, command: str = "") -> Path:
    """Write the page.

    Args:
        report: to be shown.
        path: of the file, for example ``found/report.html``.
        command: that made the report, to be shown with it.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    text = render_page(report, command=command)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate, which JSON may hold, has no UTF-8.
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return path


def render_page(report: Report, *, command: str = "") -> str:
    """Return the page as HTML."""
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters.update(number=number, percent=percent, signed=signed, spread=spread, told=told)
    script = _template("report.js")
    return page.from_string(_template("report.html")).render(
        report=report,
        conclusion=conclude(report),
        single=single_expert(report),
        pictures=_pictures(report),
        policies={policy.name: policy for policy in report.policies},
        effective=_effective(report),
        has_costs=any(p.cost is not None for p in report.policies),
        has_intervals=report.queries >= FEWEST,
        fewest=FEWEST,
        money=lambda cost: money(cost, report.cost_unit),
        money_unit=money_unit(report.cost_unit),
        compared=compared,
        hangs=hangs_on_few,
        verdict=verdict,
        share=_share,
        lineage=_lineage,
        command=command,
        style=Markup(_template("report.css")),
        script=Markup(script),
        script_digest=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _template(name: str) -> str:
    return (files("composer") / "templates" / name).read_text(encoding="utf-8")


def _pictures(report: Report) -> Mapping[str, Any]:
    drawn = {name: draw(report) for name, draw in PICTURES.items()}
    return {
        name: None if figure is None else Markup(inline_svg(figure, name))
        for name, figure in drawn.items()
    }


def _effective(report: Report) -> int:
    """Return how many queries a mean over categories is worth: C^2 / sum of 1 / n_c."""
    counts = [row.queries for row in report.categories]
    return max(1, round(len(counts) ** 2 / sum(1 / n for n in counts))) if counts else 1


def _lineage(router: RouterResult) -> str:
    """Return what a router was trained on; the marks of single queries tell a person nothing."""
    kept = {key: value for key, value in router.lineage.items() if key != "seen"}
    return json.dumps(kept, indent=2, default=str, ensure_ascii=False)


def _share(value: float, n: int) -> Interval:
    """Return Wilson's interval of a mean of n grades."""
    return wilson(value * n, n)
