"""POST /v1/responses: OpenAI's newer API, as a chat that is asked like any other; no store."""

import time

from starlette.types import ASGIApp

from composer.http.answers import answers_of, open_stream
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.headers import told
from composer.http.response_events import ResponseEvents, whole_response
from composer.http.response_requests import echoed, response_ask
from composer.streaming import Progress

__all__ = ["responses"]


async def responses(asked: Asked) -> ASGIApp:
    """Answer a conversation."""
    ask, echo, created = response_ask(asked.body), echoed(asked.body), int(time.time())
    if ask.is_streamed:

        def write(progress: Progress) -> ResponseEvents:
            return ResponseEvents(progress.ledger.id, progress.expert, created, echo)

        return await open_stream(asked, ask, write)
    answers = await answers_of(asked, [ask.prompt], ask.model)
    headers = told(asked.composer, answers, asked.began)
    return JsonResponse(whole_response(answers[0], created, echo), headers=headers)
