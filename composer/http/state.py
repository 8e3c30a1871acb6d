"""GET /health, /health/ready and /admin/registry: whether it runs, and with which file."""

import asyncio
import logging

from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.editions import Editions
from experts_registry.errors import DataError

__all__ = ["health", "ready", "registry"]

logger = logging.getLogger(__name__)


async def health(_editions: Editions, _asked: Asked) -> ASGIApp:
    """Say that the process answers; nothing else is looked at."""
    return JsonResponse({"status": "ok"})


async def ready(_editions: Editions, asked: Asked) -> ASGIApp:
    """Say whether a request could be answered."""
    if not asked.composer.registry.llms:
        return JsonResponse({"status": "no expert is enabled"}, status_code=503)
    try:
        await asyncio.to_thread(asked.visit.access.keys.require_readable)
    except DataError as error:  # every request would fail
        logger.error("not ready: %s", error)
        return JsonResponse({"status": "API keys cannot be read"}, status_code=503)
    return JsonResponse({"status": "ready"})


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
