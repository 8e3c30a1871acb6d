"""The headers ``x-composer-...``: who answered, or was asked in vain, and what it took."""

import time
from collections.abc import Sequence

from composer.http.visit import Visit
from composer.sdk import Composer
from composer.streaming import Progress
from composer.trace import Answer, Step
from experts_registry.registry import Registry
from routers.base import Decision

__all__ = ["told", "told_so_far", "told_too_late"]

Headers = dict[str, str]


def told(composer: Composer, answers: Sequence[Answer], began: float) -> Headers:
    """Return the headers of whole answers; the first one's decision stands for all."""
    first = answers[0]
    waited = max(answer.seconds + _searching(answer.decision) for answer in answers)
    steps = [step for answer in answers for step in answer.steps]
    return {
        **_decided(
            composer.registry, first.model, first.decision, first.expert, bool(first.passages)
        ),
        **_counted(steps, time.perf_counter() - began - waited),
        "x-composer-cost-usd": _usd(sum(answer.cost for answer in answers)),
    }


def told_so_far(composer: Composer, progress: Progress, began: float) -> Headers:
    """Return the headers of an answer that begins: what it will cost is not known yet."""
    failed = progress.ledger.steps
    decision, model = progress.plan.decision, progress.plan.model
    waited = sum(step.seconds for step in failed) + _searching(decision)
    overhead = progress.began - began - waited
    current = Step(expert=progress.expert, seconds=0.0)
    return {
        **_decided(composer.registry, model, decision, progress.expert, bool(progress.passages)),
        **_counted([*(s for s in failed if s.error), current], overhead),
    }


def told_too_late(visit: Visit | None) -> Headers:
    """Return the headers of a request that failed: none where nothing had been decided."""
    if visit is None:
        return {}
    trail = visit.blamed
    if trail is None or trail.decision is None:
        return {}
    waited = max(
        sum(step.seconds for step in each.steps) + _searching(each.decision)
        for each in visit.trails
    )
    return {
        **_decided(
            visit.registry,
            visit.model,
            trail.decision,
            trail.expert,
            any(step.passages for step in trail.steps),
        ),
        **_counted(visit.steps, time.perf_counter() - visit.began - waited),
        "x-composer-cost-usd": _usd(sum(step.cost for step in visit.steps)),
    }


def _decided(
    registry: Registry,
    model: str,
    decision: Decision,
    expert: str,
    is_grounded: bool,
) -> Headers:
    headers = {
        "x-composer-model": model,
        "x-composer-expert": expert,
        "x-composer-generation": str(registry.generation),
    }
    if decision.router:
        headers["x-composer-router"] = decision.router
    if decision.retrieval is not None:
        store = decision.retrieval.store if is_grounded else None
        headers["x-composer-retrieval"] = store or "none"
    scores = dict(zip(decision.experts, decision.scores, strict=False))
    if expert in scores:
        headers["x-composer-score"] = f"{scores[expert]:.4g}"
    return headers


def _searching(decision: Decision | None) -> float:
    """Return what retrievers took: they are experts, too, and no overhead."""
    retrieval = None if decision is None else decision.retrieval
    return 0.0 if retrieval is None else retrieval.seconds


def _counted(steps: Sequence[Step], overhead: float) -> Headers:
    return {
        "x-composer-attempts": str(len(steps)),
        "x-composer-fallbacks": str(sum(step.has_failed for step in steps)),
        "x-composer-overhead-ms": f"{max(0.0, overhead) * 1000:.2f}",
    }


def _usd(cost: float) -> str:
    return f"{cost:.10g}"
