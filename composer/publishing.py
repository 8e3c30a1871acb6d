"""Write what an evaluation found: one JSON, the pictures, one page."""

import json
from pathlib import Path

from composer.page import write_page
from composer.plots import draw_report
from composer.report import Report
from experts_registry.errors import DataError

__all__ = ["publish"]


def publish(report: Report, folder: Path, *, command: str = "") -> list[Path]:
    """Write ``report.json``, ``report.html`` and the pictures into a folder.

    Args:
        report: to be written.
        folder: made where it is missing.
        command: that made the report, for the page to show.

    Raises:
        DataError: the folder cannot be written.
    """
    target = folder / "report.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); choose another with --out"
        ) from error
    page = write_page(report, folder / "report.html", command=command)
    return [target, page, *draw_report(report, folder)]
