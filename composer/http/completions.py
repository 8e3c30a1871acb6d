"""POST /v1/completions: each prompt is asked as a conversation of one user turn."""

import time

from starlette.types import ASGIApp

from composer.http.answers import answers_of, open_stream
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.fields import UNSUPPORTED, Body, bad, flag, integer, listed, require
from composer.http.headers import told
from composer.http.requests import text_ask
from composer.http.shapes import TextEvents, text_completion
from composer.streaming import Progress

__all__ = ["completions"]

MAX_PROMPTS = 128


async def completions(asked: Asked) -> ASGIApp:
    """Complete texts."""
    texts, echo = _texts(asked.body), flag(asked.body, "echo")
    _refuse_unsupported(asked.body)
    asks, created = [text_ask(asked.body, text) for text in texts], int(time.time())
    if len(asks) * asks[0].n > MAX_PROMPTS:
        raise bad("n", f"asks more than {MAX_PROMPTS} answers in all; ask for fewer")
    if asks[0].is_streamed:
        ask = asks[0]
        if ask.n > 1 or len(asks) > 1:
            raise bad(
                "stream", "a stream completes one prompt once; use stream: false", UNSUPPORTED
            )

        def write(progress: Progress) -> TextEvents:
            prefix = texts[0] if echo else ""
            return TextEvents(progress.ledger.id, progress.expert, created, ask.has_usage, prefix)

        return await open_stream(asked, ask, write)
    prompts = [prompt for ask in asks for prompt in ask.prompts]
    answers = await answers_of(asked, prompts, asks[0].model)
    prefixes = [text if echo else "" for text in texts for _ in range(asks[0].n)]
    value = text_completion(answers, prefixes, created)
    return JsonResponse(value, headers=told(asked.composer, answers, asked.began))


def _texts(body: Body) -> list[str]:
    value = require(body, "prompt")
    texts = [value] if isinstance(value, str) else listed(body, "prompt", MAX_PROMPTS)
    for text in texts:
        if not isinstance(text, str):
            raise bad("prompt", "token ids are not supported; send texts", "unsupported_value")
        if not text.strip():
            raise bad("prompt", "is empty; write a question or a task")
    return texts


def _refuse_unsupported(body: Body) -> None:
    """Refuse what a chat of one turn cannot do, rather than ignore it."""
    for name in ("suffix", "logprobs"):
        if body.get(name) not in (None, ""):
            raise bad(name, "is not supported here; use /v1/chat/completions", UNSUPPORTED)
    if (integer(body, "best_of", 0, 20) or 1) > 1:
        raise bad("best_of", "is not supported; ask n answers and choose", UNSUPPORTED)
