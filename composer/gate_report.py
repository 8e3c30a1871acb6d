"""What an evaluation of a gate found, as values, JSON and lines of text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from composer.gate_figures import Curve
from composer.statistics import Interval
from routers.gates.guard import Verdict

__all__ = ["GateReport", "GateRow", "gate_lines", "verdict_sentence"]


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """What one policy did on the test queries.

    Args:
        policy: its name; ``deployed`` is what the gate does, its guard included.
        quality: mean.
        rate: share of the queries that were retrieved for.
        drafts: share of the queries that a draft was made for.
        to_always: 95 % interval of the paired difference in quality to always retrieving.
        to_never: to never retrieving.
        to_random: to retrieving as often at random, of what is deployed.
        precision: share of the retrievals that raised the quality.
        recall: share of the queries that passages help which were retrieved for.
        accuracy: share of the queries on which it retrieved exactly where that raised quality.
        regret: of utility, to the oracle.
        per_retrieval: quality gained over never, by retrieval.
        utility: mean, by price of a retrieval; each policy chose anew at each.
    """

    policy: str
    quality: float
    rate: float
    drafts: float
    to_always: Interval
    to_never: Interval
    to_random: Interval | None
    precision: float | None
    recall: float | None
    accuracy: float
    regret: float
    per_retrieval: float | None
    utility: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """How a gate does for one expert, on queries it was not trained on.

    Args:
        expert: judged.
        stores: it may be given passages from.
        train: queries that were learned from.
        test: queries that it was judged on.
        price: of retrieving from each store, in quality.
        verdict: whether the gate was found to have skill in training.
        band: within which drafts are asked for.
        rows: by policy.
        auroc: of the expected gain, for "passages help".
        brier: of the chances, by arm.
        ece: calibration error over 15 bins of equal mass, by arm.
        luck: calibration error that exact chances would have on as many queries.
        curve: quality against rate.
        helps: share of the queries that passages help.
        hurts: that they hurt.
    """

    expert: str
    stores: tuple[str, ...]
    train: int
    test: int
    price: tuple[float, ...]
    verdict: Verdict
    band: float
    rows: tuple[GateRow, ...]
    auroc: float | None
    brier: tuple[float, ...]
    ece: tuple[float, ...]
    luck: tuple[float, ...]
    curve: Curve
    helps: float
    hurts: float

    def row(self, policy: str) -> GateRow:
        """Return a row by its name."""
        return next(row for row in self.rows if row.policy == policy)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"verdict": self.verdict.to_json()}


def gate_lines(report: GateReport) -> Iterator[str]:
    """Render what people look at."""
    stores = ", ".join(report.stores)
    yield (
        f"{report.expert} with {stores}: {report.test} test queries, {report.train} of training; "
        f"passages help {report.helps:.1%} of them and hurt {report.hurts:.1%}"
    )
    yield f"guard: {verdict_sentence(report)}"
    yield _table_head(report)
    for row in report.rows:
        yield _table_row(row)
    if report.auroc is not None:
        yield (
            f"AUROC of 'passages help' {report.auroc:.3f}; area against random "
            f"{report.curve.area:+.3f} of the oracle's"
        )
    arms = ("without", *report.stores)
    yield "calibration, ECE (of exact chances on so few; Brier): " + ", ".join(
        f"{arm} {ece:.3f} ({luck:.3f}; {brier:.3f})"
        for arm, ece, luck, brier in zip(arms, report.ece, report.luck, report.brier, strict=True)
    )


def verdict_sentence(report: GateReport) -> str:
    """Say what is deployed, and on what evidence."""
    v = report.verdict
    better = (
        f"better than the better constant with probability {v.probability:.2f} in training, and "
        f"departs from it on {v.departs} of {v.queries} queries"
    )
    if v.has_skill:
        return f"the gate decides ({better})"
    policy = "never" if not v.arm else f"always ({report.stores[v.arm - 1]})"
    return f"the question does not tell; {policy} is deployed (the gate is {better})"


def _table_head(report: GateReport) -> str:
    prices = "".join(f"{'U@' + name:>8}" for name in report.rows[0].utility)
    return (
        f"  {'policy':<22}{'quality':>8}{'rate':>7}{'drafts':>7}{'  to always (95 %)':<21}"
        f"{'prec':>6}{'recall':>7}{'regret':>8}{'/retr.':>8}{prices}"
    )


def _table_row(row: GateRow) -> str:
    gap = f"  [{row.to_always.low:+.3f}, {row.to_always.high:+.3f}]"
    prices = "".join(f"{value:>8.3f}" for value in row.utility.values())
    return (
        f"  {row.policy:<22}{row.quality:>8.3f}{row.rate:>7.2f}{row.drafts:>7.2f}{gap:<21}"
        f"{_or_dash(row.precision):>6}{_or_dash(row.recall):>7}{row.regret:>8.3f}"
        f"{_or_dash(row.per_retrieval, 3):>8}{prices}"
    )


def _or_dash(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
