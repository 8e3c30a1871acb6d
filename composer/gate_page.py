"""Write what an evaluation of a gate found: one JSON, the pictures, one page without a script."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from composer.canvas import inline_svg, save
from composer.gate_plots import quality_rate
from composer.gate_report import GateReport, verdict_sentence
from composer.phrases import number, percent, signed, spread
from experts_registry.errors import DataError, PluginError

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise PluginError(
        "page: jinja2 is missing; run: pip install 'expert-composer[plots]'"
    ) from error

__all__ = ["publish_gate", "render_gate"]


def publish_gate(reports: Sequence[GateReport], folder: Path, *, command: str = "") -> list[Path]:
    """Write ``gate.json``, ``gate.html`` and a picture for each expert into a folder.

    Raises:
        DataError: the folder cannot be written.
    """
    data, page = folder / "gate.json", folder / "gate.html"
    found = json.dumps([report.to_json() for report in reports], indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data.write_text(found, encoding="utf-8")
        page.write_text(render_gate(reports, command=command), encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); choose another with --out"
        ) from error
    names = [f"quality-rate-{i}" if i else "quality-rate" for i in range(len(reports))]
    pictures = [
        path
        for name, report in zip(names, reports, strict=True)
        for path in save(quality_rate(report), folder / f"{name}.png")
    ]
    return [data, page, *pictures]


def render_gate(reports: Sequence[GateReport], *, command: str = "") -> str:
    """Return the page as HTML."""
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters.update(number=number, percent=percent, signed=signed, spread=spread)
    pictures = [Markup(inline_svg(quality_rate(r), f"gate{i}")) for i, r in enumerate(reports)]
    return page.from_string(_template("gate.html")).render(
        shown=list(zip(reports, pictures, strict=True)),
        verdict=verdict_sentence,
        command=command,
        style=Markup(_template("report.css")),
    )


def _template(name: str) -> str:
    return (files("composer") / "templates" / name).read_text(encoding="utf-8")
