"""Write what an evaluation found: one JSON, the pictures, one page."""

import json
from pathlib import Path

from composer.plots import draw_report
from composer.report import Report
from experts_registry.errors import DataError

__all__ = ["publish"]


def publish(report: Report, folder: Path) -> list[Path]:
    """Write ``report.json`` and the pictures into a folder, which is made where it is missing.

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
    return [target, *draw_report(report, folder / "quality-cost.png")]
