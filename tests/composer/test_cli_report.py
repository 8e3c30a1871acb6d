from dataclasses import replace

from composer.cli.report import report_lines
from tests.composer.reports import report


def text(found):
    return "\n".join(report_lines(replace(found, study=None)))


def test_on_a_handful_of_queries_no_line_has_an_interval():
    assert "[+0.0300, +0.0700]" in text(report())
    few = text(report(queries=19))
    assert "+0.0500" in few
    assert "against the pinned big: +0.050" in few
    assert "[+" not in few
    assert "[-" not in few
