"""GET /v1/models: the compositions, the experts, `auto`, and the routers."""

from typing import Any

from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.router_names import NamedRouter, trained_routers
from composer.routing import AUTO
from experts_registry.errors import unknown_name

__all__ = ["model", "models"]

OWNER = "expert-composer"


async def models(asked: Asked) -> ASGIApp:
    """List every name that may stand under ``model``."""
    return JsonResponse({"object": "list", "data": [*_models(asked).values()]})


async def model(asked: Asked) -> ASGIApp:
    """Tell of one name."""
    known, name = _models(asked), asked.path["id"]
    named = NamedRouter.find(name, asked.composer.registry)
    if named is not None and (named.family in known or named.model in known):
        return JsonResponse(_model(named.model, OWNER, "router"))
    if name not in known:
        raise unknown_name("model", name, known)
    return JsonResponse(known[name])


def _models(asked: Asked) -> dict[str, dict[str, Any]]:
    """Return what the caller may ask for; of routers any threshold, or those of its key."""
    registry, key = asked.composer.registry, asked.visit.key
    owners = {AUTO: OWNER, **dict.fromkeys(registry.compositions, OWNER)}
    owners |= {f"router:{name}": OWNER for name in trained_routers(registry)}
    for granted in key.models if key is not None else ():
        if (named := NamedRouter.find(granted, registry)) is not None:
            owners[named.model] = OWNER
    owners |= {name: spec.backend for name, spec in registry.experts.items()}
    kinds: dict[str, str] = {name: spec.kind for name, spec in registry.experts.items()}
    kinds |= dict.fromkeys({AUTO, *registry.compositions}, "composition")
    return {
        name: _model(name, owner, kinds.get(name, "router"))
        for name, owner in owners.items()
        if key is None or key.allows(name)
    }


def _model(name: str, owner: str, kind: str) -> dict[str, Any]:
    # The kind is ours: it says what a name is good for.
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "kind": kind}
