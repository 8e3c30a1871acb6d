"""Say in words why a decision came out as it did, from the numbers that decided."""

from typing import Any

from routers.base import Candidate, Decision

__all__ = ["decision_json", "explain"]


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
    }


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
