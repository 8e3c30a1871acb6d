"""GET /admin/status: every expert with its load and what it was asked, the file, the spending."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from starlette.types import ASGIApp

from composer.decision_sums import Sums
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.editions import Editions
from composer.status import ExpertStatus
from composer.traffic import Summary, Traffic
from experts_registry.schema import ExpertSpec

__all__ = ["status"]

_STANDING = tuple(field.name for field in fields(ExpertStatus))


async def status(editions: Editions, traffic: Traffic, asked: Asked) -> ASGIApp:
    """Tell how the server and its experts fare, for the live view of the page."""
    asked.visit.require_admin()
    summary = await traffic.asummary()
    current, now = asked.composer.registry, asked.composer.status()
    return JsonResponse(
        {
            "object": "status",
            "generation": current.generation,
            "digest": current.digest,
            "last_reload": editions.last_reload,
            "since": f"{next(iter(summary.hours))}:00:00+00:00",
            "experts": [
                {**_expert(spec, summary), **_standing(now.get(spec.name))}
                for spec in current.experts.values()
            ],
            "today": _sums(summary.today),
            "minutes": _series(summary.minutes, ":00+00:00"),
            "hours": _series(summary.hours, ":00:00+00:00"),
        }
    )


def _expert(spec: ExpertSpec, summary: Summary) -> dict[str, Any]:
    # An embedding is no call of a dispatcher: it is counted by the name that was asked for.
    found = summary.calls if spec.kind == "llm" else summary.requests
    return {
        "name": spec.name,
        "kind": spec.kind,
        "backend": spec.backend,
        **_sums(found.get(spec.name, Sums())),
    }


def _standing(expert: ExpertStatus | None) -> dict[str, Any]:
    """Return how busy an expert is; a retriever is not called by a dispatcher."""
    return dict.fromkeys(_STANDING) if expert is None else asdict(expert)


def _series(sums: Mapping[str, Sums], rest: str) -> list[dict[str, Any]]:
    return [{"time": begins + rest, **_sums(each)} for begins, each in sums.items()]


def _sums(sums: Sums) -> dict[str, Any]:
    mean = sums.mean_seconds
    return {
        "requests": sums.requests,
        "errors": sums.errors,
        "mean_ms": None if mean is None else round(mean * 1000, 3),
        "usd": sums.usd,
    }
