"""GET /health, /health/ready and /admin/registry: whether it runs, and with which file."""

from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.editions import Editions

__all__ = ["health", "ready", "registry"]


async def health(_editions: Editions, _asked: Asked) -> ASGIApp:
    """Say that the process answers; nothing else is looked at."""
    return JsonResponse({"status": "ok"})


async def ready(_editions: Editions, asked: Asked) -> ASGIApp:
    """Say whether a request could be answered."""
    if asked.composer.registry.llms:
        return JsonResponse({"status": "ready"})
    return JsonResponse({"status": "no expert is enabled"}, status_code=503)


async def registry(editions: Editions, asked: Asked) -> ASGIApp:
    """Say which edition of the file serves, and how the last edit went."""
    asked.visit.require_admin()
    current = asked.composer.registry
    return JsonResponse(
        {
            "generation": current.generation,
            "digest": current.digest,
            "experts": [*current.experts],
            "compositions": [*current.compositions],
            "last_reload": editions.last_reload,
        }
    )
