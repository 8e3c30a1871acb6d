"""POST /v1/chat/completions."""

import time

from starlette.types import ASGIApp

from composer.http.answers import answers_of, open_stream
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.fields import UNSUPPORTED, bad
from composer.http.headers import told
from composer.http.requests import chat_ask
from composer.http.shapes import ChatEvents, chat_completion
from composer.streaming import Progress

__all__ = ["chat"]


async def chat(asked: Asked) -> ASGIApp:
    """Answer a conversation."""
    ask, created = chat_ask(asked.body), int(time.time())
    if ask.is_streamed:
        if ask.n > 1:
            raise bad("n", "a stream gives one answer; use 1, or stream: false", UNSUPPORTED)

        def write(progress: Progress) -> ChatEvents:
            return ChatEvents(progress.ledger.id, progress.expert, created, ask.has_usage)

        return await open_stream(asked, ask, write)
    answers = await answers_of(asked, ask.prompts, ask.model)
    headers = told(asked.composer, answers, asked.began)
    return JsonResponse(chat_completion(answers, created), headers=headers)
