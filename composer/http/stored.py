"""GET /v1/chat/completions: the completions that are kept, which are none."""

from typing import Any

from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse

__all__ = ["stored"]


async def stored(_asked: Asked) -> ASGIApp:
    """List no completion: answers are not kept, whatever ``store`` said."""
    none: dict[str, Any] = {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    return JsonResponse(none)
