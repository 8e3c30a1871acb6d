"""Look for what makes outcomes mislead, before anything is learned from them.

An ``error`` means that nothing can be learned, a ``warning`` that figures may say more than they
should, a ``note`` is good to know. Nothing is changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from composer.statistics import FEWEST
from experts_registry.types import FloatArray
from routers.data import RoutingDataset
from routers.splits import find_alike

__all__ = ["Finding", "audit", "audit_tokens"]

IntArray = NDArray[np.integer[Any]]
_EXAMPLES = 5
_AGREEMENT = 0.98  # two experts that agree more often are one expert to a router
_NOISE = 0.05  # flipped grades above which a router learns mistakes
_MISSING = 0.5  # share of missing cells above which an expert is told of


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an audit found in the outcomes before anything was learned from them.

    Args:
        check: which audit.
        severity: ``error`` where training is meaningless, ``warning`` where figures may mislead.
        message: what is wrong, and what would be right.
        count: how often.
        examples: ids of queries, names of experts or of categories.
    """

    check: str
    severity: Literal["error", "warning", "note"]
    message: str
    count: int
    examples: tuple[str, ...] = ()


def audit(data: RoutingDataset) -> tuple[Finding, ...]:
    """Return what is wrong with these outcomes, the worst first."""
    alike = find_alike(data.queries)
    found = [
        *_quality(data),
        *_overlap(data, *alike),
        *_duplicates(data, *alike),
        *_label_noise(data, *alike),
        *_cells(data),
        *_twins(data),
        *_costs(data),
        *_categories(data),
    ]
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda f: order.index(f.severity)))


def audit_tokens(path: Path) -> tuple[Finding, ...]:
    """Tell of experts whose token counts never change: they were made up, not counted.

    Args:
        path: outcomes as for `RoutingDataset.load`; JSON lines hold no token counts.
    """
    from routers.formats import read_tokens

    found: list[Finding] = []
    for name, counts in read_tokens(path).items():
        constant = sorted(
            e for e, c in counts.items() if len(c) >= FEWEST and (c == c[0]).all() and c[0] > 0
        )
        if constant:
            found.append(
                Finding(
                    check="constant token counts",
                    severity="warning",
                    message=f"{name} is the same for every query, so it was not counted, and costs "
                    "made from it cannot tell cheap queries from dear ones; record real usage",
                    count=len(constant),
                    examples=tuple(constant[:_EXAMPLES]),
                )
            )
    return tuple(found)


def _quality(data: RoutingDataset) -> Iterator[Finding]:
    """Whether there is anything to learn at all."""
    known = ~np.isnan(data.quality)
    graded = known.any(axis=1).sum()
    if not known.any():
        yield Finding(
            check="quality",
            severity="error",
            message="no answer is graded; collect outcomes, or grade those that there are",
            count=len(data),
        )
        return
    if np.nanmax(data.quality) == np.nanmin(data.quality) and known.sum() > 1:
        value = float(np.nanmax(data.quality))
        yield Finding(
            check="quality",
            severity="error",
            message=f"every answer is graded {value:g}, so no expert is better than another; "
            "check the grader",
            count=int(known.sum()),
        )
        return
    if len(data.experts) > 1 and not _differs(data.quality):
        yield Finding(
            check="quality",
            severity="error",
            message="all experts have the same quality on every query, so it makes no difference "
            "who is asked; check the grader, or add other experts",
            count=int(graded),
        )
    if graded < 5 * FEWEST:
        yield Finding(
            check="queries",
            severity="warning",
            message=f"{graded} graded queries are few: intervals will be wide and routers cautious",
            count=int(graded),
        )


def _differs(quality: FloatArray) -> bool:
    low = np.where(np.isnan(quality), np.inf, quality).min(axis=1)
    high = np.where(np.isnan(quality), -np.inf, quality).max(axis=1)
    several = (~np.isnan(quality)).sum(axis=1) > 1
    return bool((high > low)[several].any()) or not several.any()


def _overlap(
    data: RoutingDataset, first: IntArray, second: IntArray, similarity: FloatArray
) -> Iterator[Finding]:
    """Queries of the test split that are, or nearly are, queries of another split."""
    is_test = np.array(data.split) == "test"
    crossing = is_test[first] != is_test[second]
    for kind, rows, what in (
        ("exact", similarity == 1, "also stand in"),
        ("n-gram", similarity < 1, "are nearly a query of"),
    ):
        pairs = crossing & rows
        leaked = np.unique(np.where(is_test[first], first, second)[pairs])
        if len(leaked):
            yield Finding(
                check=f"{kind} overlap",
                severity="warning",
                message=f"{len(leaked)} test queries {what} the training split; they are left out "
                "of every evaluation here, but not of figures made elsewhere",
                count=len(leaked),
                examples=tuple(data.ids[i] for i in leaked[:_EXAMPLES]),
            )


def _duplicates(
    data: RoutingDataset, first: IntArray, second: IntArray, similarity: FloatArray
) -> Iterator[Finding]:
    for severity, rows, what in (
        ("warning", similarity == 1, "equal another one"),
        ("note", similarity < 1, "nearly equal another one"),
    ):
        again = np.unique(second[rows])
        if len(again):
            yield Finding(
                check="duplicate queries",
                severity="warning" if severity == "warning" and len(again) > 1 else "note",
                message=f"{len(again)} queries {what}; they are kept on one side of every split, "
                "and count as often as they come",
                count=len(again),
                examples=tuple(data.ids[i] for i in again[:_EXAMPLES]),
            )


def _label_noise(
    data: RoutingDataset, first: IntArray, second: IntArray, similarity: FloatArray
) -> Iterator[Finding]:
    """Estimate flipped grades from pairs of alike queries that the same expert answered.

    Two grades of one thing, each flipped with probability r, differ with d = 2 r (1 - r), so
    r = (1 - sqrt(1 - 2 d)) / 2. What differs because the expert samples counts as well.
    """
    apart = np.abs(data.quality[first] - data.quality[second])  # (pairs, m)
    known = ~np.isnan(apart)
    if known.sum() < FEWEST:
        return
    differ = float(apart[known].mean())
    rate = (1 - np.sqrt(max(0.0, 1 - 2 * differ))) / 2
    if rate > _NOISE:
        worst = np.argsort(-np.where(known, apart, 0).sum(axis=1))[:_EXAMPLES]
        yield Finding(
            check="label noise",
            severity="warning",
            message=f"the same expert gets different grades on alike queries: about {rate:.0%} of "
            "the grades are flipped, by grader or by chance; grade several answers per query",
            count=int((apart[known] > 0).sum()),
            examples=tuple(data.ids[first[i]] for i in worst),
        )


def _cells(data: RoutingDataset) -> Iterator[Finding]:
    missing = np.isnan(data.quality)
    rows = np.flatnonzero(missing.any(axis=1))
    if not len(rows) or missing.all():
        return
    share = missing.mean(axis=0)
    sparse = [name for i, name in enumerate(data.experts) if share[i] > _MISSING]
    message = f"{missing.mean():.1%} of the cells have no quality"
    if sparse:
        message += f"; more than half are missing of {', '.join(sparse[:_EXAMPLES])}"
    yield Finding(
        check="missing cells",
        severity="warning" if sparse else "note",
        message=f"{message}; queries that lack an expert cannot be evaluated: collect them",
        count=int(missing.sum()),
        examples=tuple(data.ids[i] for i in rows[:_EXAMPLES]),
    )


def _twins(data: RoutingDataset) -> Iterator[Finding]:
    """Experts that never, or hardly ever, differ."""
    for a, b in combinations(range(len(data.experts)), 2):
        apart = np.abs(data.quality[:, a] - data.quality[:, b])
        apart = apart[~np.isnan(apart)]
        if len(apart) < FEWEST or (agreement := float((apart == 0).mean())) <= _AGREEMENT:
            continue
        often = "always" if agreement == 1 else f"on {agreement:.1%} of the queries"
        pair = (data.experts[a], data.experts[b])
        yield Finding(
            check="experts alike",
            severity="warning" if agreement == 1 else "note",
            message=f"{pair[0]} and {pair[1]} {often} have the same quality: "
            "a router can only choose the cheaper",
            count=len(apart),
            examples=pair,
        )


def _costs(data: RoutingDataset) -> Iterator[Finding]:
    known = ~np.isnan(data.cost)
    if not known.any():
        yield Finding(
            check="costs",
            severity="note",
            message="no cost is known, so quality cannot be weighed against it; give the experts "
            "prices or active_params",
            count=data.cost.size,
        )
        return
    silent = [name for i, name in enumerate(data.experts) if not known[:, i].any()]
    if silent:
        yield Finding(
            check="costs",
            severity="warning",
            message=f"no cost is known of {', '.join(silent)}: counted as the dearest",
            count=len(silent),
            examples=tuple(silent[:_EXAMPLES]),
        )
    if data.cost_unit == "B params":  # the same for every query by nature
        return
    constant = _constant(data, known)
    if constant:
        yield Finding(
            check="constant costs",
            severity="warning",
            message="every query costs the same, so token counts were not recorded, and dear "
            "queries look as cheap as others; record usage when collecting",
            count=len(constant),
            examples=tuple(constant[:_EXAMPLES]),
        )


def _constant(data: RoutingDataset, known: NDArray[np.bool_]) -> Sequence[str]:
    names = []
    for i, name in enumerate(data.experts):
        cost = data.cost[known[:, i], i]
        if len(cost) >= FEWEST and cost[0] > 0 and (cost == cost[0]).all():
            names.append(name)
    return names


def _categories(data: RoutingDataset) -> Iterator[Finding]:
    count = np.bincount(data.labels[data.labels >= 0], minlength=len(data.categories))
    small = [c for c, n in zip(data.categories, count, strict=True) if n < FEWEST]
    if small:
        yield Finding(
            check="small categories",
            severity="warning",
            message=f"{len(small)} categories have fewer than {FEWEST} queries: what is best "
            "there is a guess, yet each counts as much as a large one; collect more, or join them",
            count=len(small),
            examples=tuple(small[:_EXAMPLES]),
        )
    if unlabelled := int((data.labels < 0).sum()):
        yield Finding(
            check="categories",
            severity="note",
            message=f"{unlabelled} queries have no category; they count as one of their own",
            count=unlabelled,
        )
