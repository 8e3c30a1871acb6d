"""Say in words why a decision came out as it did, from the numbers that decided."""

from typing import Any

from routers.arms import RatedArm, RetrievalDecision
from routers.base import Candidate, Decision

__all__ = ["decision_json", "explain", "retrieval_in_words", "retrieval_json"]

_SHOWN = 3  # passages of which an explanation names id and score


def explain(decision: Decision) -> str:
    """Render a decision for people: the choice, the reason, every candidate, the alternative."""
    lines = [f"{decision.primary}: {decision.reason}"]
    if decision.router:
        lines.append(f"router: {decision.router}")
    lines += [f"{key}: {_plain(value)}" for key, value in decision.details.items() if value]
    if decision.candidates:
        width = max(len(c.expert) for c in decision.candidates)
        cost = f"cost ({decision.cost_unit})" if decision.cost_unit else "cost"
        lines.append(f"  {'expert':<{width}}  quality        {cost:>12}   utility")
        lines += [_row(c, width, c.expert == decision.primary) for c in decision.candidates]
    if decision.otherwise:
        lines.append(f"otherwise: {decision.otherwise}")
    if decision.retrieval is not None:
        lines += _retrieval(decision.retrieval)
    return "\n".join(lines)


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON values."""
    return {
        "experts": list(decision.experts),
        "scores": list(decision.scores),
        "reason": decision.reason,
        "router": decision.router,
        "otherwise": decision.otherwise,
        "cost_unit": decision.cost_unit,
        "details": dict(decision.details),
        "candidates": [c._asdict() for c in decision.candidates],
        "retrieval": retrieval_json(decision.retrieval),
    }


def retrieval_json(retrieval: RetrievalDecision | None) -> dict[str, Any] | None:
    """Return it as JSON values; None where it was not asked."""
    if retrieval is None:
        return None
    return {
        "store": retrieval.store,
        "k": retrieval.k,
        "reason": retrieval.reason,
        "stage": retrieval.stage,
        "arms": [_arm_json(rated) for rated in retrieval.arms],
        "retrievers": list(retrieval.retrievers),
        "found": [passage._asdict() for passage in retrieval.found],
        "seconds": retrieval.seconds,
    }


def _arm_json(rated: RatedArm) -> dict[str, Any]:
    return {**rated._asdict(), "arm": str(rated.arm)}


def retrieval_in_words(retrieval: RetrievalDecision) -> str:
    """Say in a line whether passages are retrieved, who decided so, and why."""
    what = f"{retrieval.k} passages from {retrieval.store}" if retrieval.store else "no passages"
    return f"retrieval: {what}, by {retrieval.stage}: {retrieval.reason}"


def _retrieval(retrieval: RetrievalDecision) -> list[str]:
    """Say the same, from which numbers, and what was found."""
    lines = [retrieval_in_words(retrieval)]
    if retrieval.arms:
        width = max(len(str(rated.arm)) for rated in retrieval.arms)
        lines.append(f"  {'arm':<{width}}  quality               price      net")
        lines += [_rated(rated, width) for rated in retrieval.arms]
    if retrieval.found:
        first = ", ".join(f"{p.id} {p.score:.3f}" for p in retrieval.found[:_SHOWN])
        rest = ", ..." if len(retrieval.found) > _SHOWN else ""
        who = " and ".join(retrieval.retrievers) or retrieval.store
        lines.append(f"found by {who}: {first}{rest}")
    return lines


def _rated(rated: RatedArm, width: int) -> str:
    quality = f"{rated.quality:.3f} ± {rated.error:.3f}"
    net = rated.quality - rated.cost
    return f"  {rated.arm!s:<{width}}  {quality}  {rated.cost:>12.4g}  {net:>7.3f}"


def _row(candidate: Candidate, width: int, is_primary: bool) -> str:
    mark = "*" if is_primary else " "
    quality = f"{candidate.quality:.3f} ± {candidate.error:.3f}"
    cost = "?" if candidate.cost is None else f"{candidate.cost:.4g}"
    row = f"{mark} {candidate.expert:<{width}}  {quality}  {cost:>12}  {candidate.utility:>7.3f}"
    return f"{row}  ({candidate.excluded})" if candidate.excluded else row


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
