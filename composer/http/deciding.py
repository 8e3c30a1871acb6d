"""POST /v1/route, which asks nobody, POST /v1/feedback, and GET /v1/decisions/{request id}."""

import asyncio

from starlette.types import ASGIApp

from composer.explanation import decision_json
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.errors import ApiError
from composer.http.fields import decimal, require, text
from composer.http.passages import wish_of
from composer.http.requests import chat_ask

__all__ = ["decision", "feedback", "route"]


async def route(asked: Asked) -> ASGIApp:
    """Say whom a chat request would ask, and why, without asking."""
    ask = chat_ask(asked.body)
    wish = wish_of(asked.body, asked.visit.key, asked.composer.registry)
    asked.visit.admit(ask.model)
    decision = await asked.composer.aroute(
        ask.prompt, model=ask.model, retrieval=wish.mode, stores=wish.stores
    )
    generation = asked.composer.registry.generation
    return JsonResponse({"model": ask.model, "generation": generation, **decision_json(decision)})


async def decision(asked: Asked) -> ASGIApp:
    """Tell everything that the decision log knows of a request of the caller's own."""
    name = asked.path["id"]
    logged = await asyncio.to_thread(asked.visit.find, name)
    if logged is None:
        raise ApiError(
            404,
            f"decision {name[:80]!r}: is not in the log; requests are there after half a second, "
            "and only your own",
            code="decision_not_found",
        )
    return JsonResponse({"object": "decision", **logged.json()})


async def feedback(asked: Asked) -> ASGIApp:
    """Take a grade of an answer, named by the id of its completion."""
    require(asked.body, "id")
    require(asked.body, "quality")
    quality = decimal(asked.body, "quality", 0, 1) or 0.0
    asked.visit.count()
    given = await asked.composer.afeedback(_answer_id(text(asked.body, "id") or ""), quality)
    return JsonResponse(
        {
            "id": given.answer_id,
            "object": "feedback",
            "expert": given.expert,
            "quality": given.quality,
            "time": given.time,
        }
    )


def _answer_id(completion: str) -> str:
    """Return the id of an answer from what its completion or response is called."""
    for prefix in ("chatcmpl-", "cmpl-", "resp_"):
        if completion.startswith(prefix):
            return completion.removeprefix(prefix)
    return completion
