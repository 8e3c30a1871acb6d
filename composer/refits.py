"""What holds over refits: values, and the figures that sum them up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from composer.statistics import Estimate, McNemar, Verdict, over_refits

__all__ = ["ColdStart", "Refit", "StudyResult", "Summary", "summarise"]


@dataclass(frozen=True, kw_only=True)
class Refit:
    """One router fitted anew on one split.

    Args:
        kind: how queries were held out.
        held_out: seed of the split, or the category.
        router: name of the router.
        queries: evaluated.
        quality: reached.
        cost: paid; None where unknown.
        aiq: None where costs are unknown.
        gap_closed: share of the way from best single to oracle.
        differences: router less each other policy, in quality.
        aiq_differences: the same, in AIQ; empty where costs are unknown.
        verdict: against the best single expert, by McNemar's test at 5 %.
        mcnemar: of that comparison.
        pinned: against the pinned baseline, where there is one.
    """

    kind: Literal["random", "category"]
    held_out: str
    router: str
    queries: int
    quality: float
    cost: float | None
    aiq: float | None
    gap_closed: float | None
    differences: Mapping[str, float]
    aiq_differences: Mapping[str, float]
    verdict: Verdict
    mcnemar: McNemar
    pinned: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All refits of one kind of one router.

    Args:
        kind: how queries were held out.
        router: name of the router.
        refits: how many.
        quality: mean over the refits.
        quality_sd: standard deviation over the refits.
        aiq: mean; None where costs are unknown.
        aiq_sd: standard deviation.
        gap_closed: mean over the refits where it is defined.
        differences: mean difference in quality to each other policy, with an interval over the
            refits, which a single refit cannot have: then it is [-1, 1].
        aiq_differences: the same, in AIQ.
        better: refits significantly above the best single expert.
        worse: refits significantly below it.
        violations: share of refits significantly below the pinned baseline; None without one.
    """

    kind: Literal["random", "category"]
    router: str
    refits: int
    quality: float
    quality_sd: float
    aiq: float | None
    aiq_sd: float | None
    gap_closed: float | None
    differences: Mapping[str, Estimate]
    aiq_differences: Mapping[str, Estimate]
    better: int
    worse: int
    violations: float | None


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """One expert hidden from training, then made known by a few probes.

    Args:
        expert: that was hidden.
        router: name of the router.
        prior: quality of routing with the hidden expert at its prior.
        probed: quality after its outcomes on ``probes`` queries; mean over draws of probes.
        full: quality of the router that was trained with all its outcomes.
        share: of the queries sent to it: with the prior, after the probes, with all outcomes.
        error: distance of its predicted mean quality from the true one: prior, probed, full.
        probes: queries it was probed with.
    """

    expert: str
    router: str
    prior: float
    probed: float
    full: float
    share: tuple[float, float, float]
    error: tuple[float, float, float]
    probes: int


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What holds over refits, left-out categories and left-out experts."""

    refits: tuple[Refit, ...]
    summaries: tuple[Summary, ...]
    cold_starts: tuple[ColdStart, ...]
    seed: int
    fits: int
    seconds: float


def summarise(refits: Sequence[Refit], test_share: float) -> Iterator[Summary]:
    """Sum up the refits of each router, by how queries were held out.

    Args:
        refits: of any kinds and routers.
        test_share: share of queries that a random split holds out.
    """
    groups: dict[tuple[Literal["random", "category"], str], list[Refit]] = {}
    for refit in refits:
        groups.setdefault((refit.kind, refit.router), []).append(refit)
    for (kind, router), group in groups.items():
        share = test_share if kind == "random" else 0.0  # categories share no query
        areas = [refit.aiq for refit in group if refit.aiq is not None]
        gaps = [refit.gap_closed for refit in group if refit.gap_closed is not None]
        verdicts = [refit.verdict for refit in group]
        pinned = [refit.pinned == "worse" for refit in group if refit.pinned is not None]
        qualities = [refit.quality for refit in group]
        yield Summary(
            kind=kind,
            router=router,
            refits=len(group),
            quality=float(np.mean(qualities)),
            quality_sd=float(np.std(qualities)),
            aiq=float(np.mean(areas)) if areas else None,
            aiq_sd=float(np.std(areas)) if areas else None,
            gap_closed=float(np.mean(gaps)) if gaps else None,
            differences=_over([refit.differences for refit in group], share),
            aiq_differences=_over([refit.aiq_differences for refit in group], share),
            better=verdicts.count("better"),
            worse=verdicts.count("worse"),
            violations=float(np.mean(pinned)) if pinned else None,
        )


def _over(found: Sequence[Mapping[str, float]], share: float) -> dict[str, Estimate]:
    names = [name for name in found[0] if all(name in each for each in found)]
    return {name: over_refits([each[name] for each in found], share) for name in names}
