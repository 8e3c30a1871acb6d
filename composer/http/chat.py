"""POST /v1/chat/completions."""

import time

from starlette.types import ASGIApp

from composer.http.answers import answers_of, open_stream
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.headers import told
from composer.http.requests import chat_ask
from composer.http.shapes import ChatEvents, chat_completion
from composer.streaming import Progress

__all__ = ["chat"]


async def chat(asked: Asked) -> ASGIApp:
    """Answer a conversation."""
    ask, created = chat_ask(asked.body), int(time.time())
    if ask.is_streamed:

        def write(progress: Progress) -> ChatEvents:
            ledger, n = progress.ledger, ask.prompt.sampling.n
            return ChatEvents(ledger.id, progress.expert, created, ask.has_usage, n)

        return await open_stream(asked, ask, write)
    answers = await answers_of(asked, [ask.prompt], ask.model)
    headers = told(asked.composer, answers, asked.began)
    return JsonResponse(chat_completion(answers[0], created), headers=headers)
