"""Whether a router uses its experts soundly, read from its decisions; every verdict is a value.

The faults are those that Wang et al. name in "HoME: Hierarchy of Multi-Gate Experts for
Multi-Task Learning at Kuaishou", https://arxiv.org/abs/2408.05430, carried over from layers to
whole experts: collapse, degradation of a shared expert, underfitting of rare domains, scores on
scales that cannot be compared; and, beside them, experts that differ in nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from composer.statistics import FEWEST, wilson
from experts_registry.types import FloatArray

__all__ = ["HealthCheck", "RoutingLog", "check_health", "is_collapsed", "usage_entropy"]

IntArray = NDArray[np.integer[Any]]
Check = Literal["collapse", "degradation", "underfitting", "score scale", "redundancy"]
_WINDOW = 50  # decisions per expert below which nothing is said of collapse
_LEAST_EFFECTIVE, _LEAST_SHARE = 0.5, 0.1  # of the number of experts; of an equal share
_TAKEN_OVER, _INFORMATION = 0.8, 0.5
_SCALES, _AGREEMENT = 5.0, 0.98


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """One verdict.

    Args:
        check: which fault was looked for.
        raised: whether it was found; None where the log is too small, or lacks what it takes.
        value: what was measured; None where nothing was.
        threshold: where the fault begins.
        subjects: the experts or domains concerned.
        message: for people, with what to do about it.
    """

    check: Check
    raised: bool | None
    value: float | None
    threshold: float
    subjects: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingLog:
    """What is known of n decisions among m experts.

    Args:
        experts: (m) names.
        chosen: (n) column of the expert that answered.
        domains: (n) labels, an empty string where there is none; or nothing.
        scores: (n, m) predicted quality; or nothing.
        quality: (n, m) outcomes, NaN where unknown; or nothing.
        shared: the expert that is meant for every domain: the baseline or the general one.
        own: domain -> the expert that is meant for it.
    """

    experts: tuple[str, ...]
    chosen: IntArray
    domains: tuple[str, ...] = ()
    scores: FloatArray | None = None
    quality: FloatArray | None = None
    shared: str | None = None
    own: Mapping[str, str] = field(default_factory=dict)


def check_health(log: RoutingLog) -> tuple[HealthCheck, ...]:
    """Return one verdict for each fault, in a fixed order."""
    return (
        _collapse(log),
        _degradation(log),
        _underfitting(log),
        _score_scale(log),
        _redundancy(log),
    )


def usage_entropy(chosen: IntArray, experts: int) -> float:
    """Return the entropy of the experts' shares of the decisions, in nats."""
    share = np.bincount(chosen, minlength=experts) / max(1, len(chosen))
    used = share[share > 0]
    return float(-(used * np.log(used)).sum()) + 0.0  # never -0.0


def is_collapsed(chosen: IntArray, experts: int) -> bool | None:
    """Say whether few experts get nearly everything; None below 50 decisions per expert."""
    if experts < 2 or len(chosen) < _WINDOW * experts:
        return None
    share = np.bincount(chosen, minlength=experts) / len(chosen)
    effective = np.exp(usage_entropy(chosen, experts))
    return bool(effective < _LEAST_EFFECTIVE * experts or share.min() < _LEAST_SHARE / experts)


def _collapse(log: RoutingLog) -> HealthCheck:
    m = len(log.experts)
    effective = float(np.exp(usage_entropy(log.chosen, m)))
    share = np.bincount(log.chosen, minlength=m) / max(1, len(log.chosen))
    raised = is_collapsed(log.chosen, m)
    unused = tuple(e for e, u in zip(log.experts, share, strict=True) if u < _LEAST_SHARE / m)
    message = f"{effective:.1f} of {m} experts are effectively used"
    if raised is None:
        message += f"; {_WINDOW * m} decisions are needed to call that a collapse"
    elif raised:
        message += "; remove the idle ones, or check their outcomes and prices"
    return HealthCheck(
        check="collapse",
        raised=raised,
        value=effective,
        threshold=_LEAST_EFFECTIVE * m,
        subjects=unused,
        message=message,
    )


def _degradation(log: RoutingLog) -> HealthCheck:
    def told(
        raised: bool | None, value: float | None, message: str, domain: str = ""
    ) -> HealthCheck:
        names = (log.shared, domain) if raised and log.shared else ()
        return HealthCheck(
            check="degradation",
            raised=raised,
            value=value,
            threshold=_TAKEN_OVER,
            subjects=names,
            message=message,
        )

    labels, names = _labels(log)
    if log.shared not in log.experts or len(names) < 2:
        return told(None, None, "needs a shared expert, and decisions in at least two domains")
    is_shared = log.chosen == log.experts.index(log.shared)
    if is_shared.sum() < FEWEST:
        return told(None, None, f"{log.shared} answered fewer than {FEWEST} queries")
    share = np.bincount(labels[is_shared], minlength=len(names)) / is_shared.sum()
    most, usual = int(share.argmax()), np.bincount(labels, minlength=len(names)) / len(labels)
    value, known = float(share[most]), _information(labels, is_shared)
    raised = (value > _TAKEN_OVER and usual[most] <= _TAKEN_OVER) or known > _INFORMATION
    message = f"{value:.0%} of what {log.shared} answers is {names[most]}"
    if known > _INFORMATION:
        message += f"; the domain alone decides whether {log.shared} answers"
    if raised:
        message += "; it is not shared any more: name another expert, or give it more outcomes"
    return told(bool(raised), value, message, names[most])


def _underfitting(log: RoutingLog) -> HealthCheck:
    found: list[tuple[float, str]] = []
    is_known = log.quality is not None and log.shared in log.experts and bool(log.own)
    if is_known:
        found = [gap for domain in log.own if (gap := _neglect(log, domain)) is not None]
    message = "rare domains are sent to the expert that is meant for them"
    if not is_known:
        message = "needs outcomes, a shared expert, and experts that are meant for a domain"
    elif found:
        listed = ", ".join(domain for _, domain in found)
        message = f"{listed}: sent to {log.shared}, though the expert meant for it is as good"
        message += "; collect more outcomes there, or route by category"
    return HealthCheck(
        check="underfitting",
        raised=bool(found) if is_known else None,
        value=max((gap for gap, _ in found), default=0.0) if is_known else None,
        threshold=0.0,
        subjects=tuple(domain for _, domain in found),
        message=message,
    )


def _neglect(log: RoutingLog, domain: str) -> tuple[float, str] | None:
    """Return by how much a rare domain prefers the shared expert to an equally good own one."""
    rows = np.array([d == domain for d in log.domains], dtype=bool)
    known = len(set(log.domains) - {""})
    own = log.own[domain]
    if own not in log.experts or own == log.shared or log.quality is None or log.shared is None:
        return None
    if not rows.any() or rows.sum() >= len(rows) / known:  # rare: fewer than the average domain
        return None
    columns = [log.experts.index(own), log.experts.index(log.shared)]
    sent = [int((log.chosen[rows] == c).sum()) for c in columns]
    traffic = [wilson(count, int(rows.sum())) for count in sent]
    graded = [log.quality[rows, c][~np.isnan(log.quality[rows, c])] for c in columns]
    if min(map(len, graded)) == 0:
        return None
    quality = [wilson(float(g.sum()), len(g)) for g in graded]
    is_as_good = graded[0].mean() >= graded[1].mean() and quality[0].low >= quality[1].low
    if is_as_good and traffic[0].high < traffic[1].low:
        return (sent[1] - sent[0]) / int(rows.sum()), domain
    return None


def _score_scale(log: RoutingLog) -> HealthCheck:
    value, names = None, ("", "")
    if log.scores is not None and len(log.scores) > 1:
        clipped = np.clip(log.scores, 1e-3, 1 - 1e-3)
        spread = np.log(clipped / (1 - clipped)).std(axis=0)
        value, names = 1.0, (log.experts[int(spread.argmax())], log.experts[int(spread.argmin())])
        if spread.max() > 1e-6:
            value = float(min(1e6, spread.max() / max(spread.min(), 1e-9)))
    raised = None if value is None else value > _SCALES
    message = (
        "needs scores" if value is None else f"scores spread alike within a factor {value:.1f}"
    )
    if raised:
        message = f"scores of {names[0]} spread {value:.0f} times as wide as those of {names[1]}"
        message += "; it wins and loses by scale: give both as many outcomes, or calibrate"
    return HealthCheck(
        check="score scale",
        raised=raised,
        value=value,
        threshold=_SCALES,
        subjects=names if raised else (),
        message=message,
    )


def _redundancy(log: RoutingLog) -> HealthCheck:
    pairs: list[tuple[float, str, str]] = []
    quality = np.empty((0, len(log.experts))) if log.quality is None else log.quality
    for a, b in combinations(range(len(log.experts)), 2):
        first, second = quality[:, a], quality[:, b]
        both = ~np.isnan(first) & ~np.isnan(second)
        if both.sum() >= FEWEST:
            agreement = float((np.abs(first[both] - second[both]) < 1e-9).mean())
            pairs.append((agreement, log.experts[a], log.experts[b]))
    alike = sorted((p for p in pairs if p[0] > _AGREEMENT), reverse=True)
    message = "needs outcomes of two experts on the same queries"
    if pairs:
        message = f"experts' qualities by domain lie {_divergence(log):.3f} nats apart on average"
    if alike:
        listed = "; ".join(f"{a} and {b} ({share:.1%})" for share, a, b in alike[:5])
        message = f"the same outcome on nearly every query: {listed}; keep the cheaper one"
    return HealthCheck(
        check="redundancy",
        raised=bool(alike) if pairs else None,
        value=max(pairs)[0] if pairs else None,
        threshold=_AGREEMENT,
        subjects=tuple(dict.fromkeys(name for _, a, b in alike for name in (a, b))),
        message=message,
    )


def _divergence(log: RoutingLog) -> float:
    """Return the mean Kullback-Leibler divergence between two experts' qualities by domain."""
    quality = np.empty((0, 0)) if log.quality is None else log.quality
    labels, names = _labels(log)
    if not names:
        labels, names = np.zeros(len(quality), dtype=np.intp), ("",)
    rows = [quality[labels == c] for c in range(len(names))]
    known = np.stack([(~np.isnan(r)).sum(axis=0) for r in rows])
    p = (np.stack([np.nansum(r, axis=0) for r in rows]) + 0.5) / (known + 1)  # (domains, m)
    gain, loss = np.log(p[:, :, None] / p[:, None]), np.log((1 - p)[:, :, None] / (1 - p)[:, None])
    divergence = p[:, :, None] * gain + (1 - p)[:, :, None] * loss
    m = len(log.experts)
    return float(divergence.mean(axis=0).sum() / max(1, m * (m - 1)))


def _labels(log: RoutingLog) -> tuple[IntArray, tuple[str, ...]]:
    """Number the domains (n,); queries without one share a number of their own."""
    names = tuple(sorted(set(log.domains)))
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[d] for d in log.domains], dtype=np.intp), names


def _information(labels: IntArray, is_shared: NDArray[np.bool_]) -> float:
    """Return I(domain; shared) / H(shared): 1 where the domain decides alone."""
    share = float(is_shared.mean())
    if share in (0.0, 1.0):
        return 0.0
    total = _binary(np.array([share]))[0]
    count = np.bincount(labels)
    within = np.bincount(labels, weights=is_shared) / np.maximum(count, 1)
    return float(1 - (count / len(labels) * _binary(within)).sum() / total)


def _binary(p: FloatArray) -> FloatArray:
    """Return the entropy of a coin, in nats."""
    q = np.clip(p, 1e-12, 1 - 1e-12)
    entropy: FloatArray = -(q * np.log(q) + (1 - q) * np.log(1 - q))
    return entropy
