"""Draw what a retrieval gate is worth: quality against how often it retrieves.

Needs the extra ``plots``.
"""

from composer.canvas import INK, MUTED, VERMILION, Figure, canvas, plain, shown
from composer.gate_report import GateReport

__all__ = ["quality_rate"]

_MARKED = {
    "never": "o", "always": "o", "category majority": "s", "similarity threshold": "v",
    "draft threshold": "^", "SKR-kNN": "P", "stage A": "d", "stage A+B": "D", "deployed": "*",
}  # fmt: skip


def quality_rate(report: GateReport) -> Figure:
    """Draw the gate's ranking between chance and the oracle, and every policy's point."""
    with plain():
        figure = canvas(7.5, 4.8)
        axes = figure.subplots()
        curve = report.curve
        axes.plot(curve.rates, curve.oracle, color=MUTED, linestyle=":", label="oracle's ranking")
        axes.plot(curve.rates, curve.gate, color=VERMILION, label="gate's ranking")
        axes.plot(curve.rates, curve.random, color=INK, linestyle="--", label="random")
        for row in report.rows:
            if (marker := _MARKED.get(row.policy)) is None:
                continue
            size = 13 if row.policy == "deployed" else 7
            axes.plot(
                row.rate, row.quality, marker, markersize=size, color=INK, fillstyle="none",
                label=row.policy,
            )  # fmt: skip
        axes.set_xlabel("share of queries retrieved for")
        axes.set_ylabel("mean quality")
        axes.set_title(f"{shown(report.expert)} with {shown(', '.join(report.stores))}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
