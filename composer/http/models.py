"""GET /v1/models: the compositions, the experts, and `auto`."""

from typing import Any

from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.routing import AUTO
from experts_registry.errors import unknown_name

__all__ = ["model", "models"]


async def models(asked: Asked) -> ASGIApp:
    """List every name that may stand under ``model``."""
    return JsonResponse({"object": "list", "data": [*_models(asked).values()]})


async def model(asked: Asked) -> ASGIApp:
    """Tell of one name."""
    known, name = _models(asked), asked.path["id"]
    if name not in known:
        raise unknown_name("model", name, known)
    return JsonResponse(known[name])


def _models(asked: Asked) -> dict[str, dict[str, Any]]:
    """Return what the caller may ask for."""
    registry, key = asked.composer.registry, asked.visit.key
    owners = {AUTO: "expert-composer", **dict.fromkeys(registry.compositions, "expert-composer")}
    owners |= {name: spec.backend for name, spec in registry.experts.items()}
    kinds = {name: spec.kind for name, spec in registry.experts.items()}
    return {
        name: {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": owner,
            "kind": kinds.get(name, "composition"),  # ours: what it is good for
        }
        for name, owner in owners.items()
        if key is None or key.allows(name)
    }
