"""POST /v1/route, which asks nobody, and POST /v1/feedback."""

from starlette.types import ASGIApp

from composer.explanation import decision_json
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.fields import bad, require, text
from composer.http.requests import chat_ask

__all__ = ["feedback", "route"]


async def route(asked: Asked) -> ASGIApp:
    """Say whom a chat request would ask, and why, without asking."""
    ask = chat_ask(asked.body)
    decision = await asked.composer.aroute(ask.prompt, model=ask.model)
    generation = asked.composer.registry.generation
    return JsonResponse({"model": ask.model, "generation": generation, **decision_json(decision)})


async def feedback(asked: Asked) -> ASGIApp:
    """Take a grade of an answer, named by the id of its completion."""
    require(asked.body, "id")
    quality = require(asked.body, "quality")
    if not isinstance(quality, int | float) or isinstance(quality, bool):
        raise bad("quality", "is no number; use one from 0, bad, to 1, perfect", "invalid_type")
    answer = (text(asked.body, "id") or "").removeprefix("chatcmpl-").removeprefix("cmpl-")
    given = await asked.composer.afeedback(answer, quality)
    return JsonResponse(
        {
            "id": given.answer_id,
            "object": "feedback",
            "expert": given.expert,
            "quality": given.quality,
            "time": given.time,
        }
    )
