"""POST /v1/completions: each prompt is asked as a conversation of one user turn."""

import time
from collections.abc import Sequence
from dataclasses import replace

from starlette.types import ASGIApp

from composer.http.answers import answers_of
from composer.http.asked import Asked
from composer.http.best_of import best, candidates
from composer.http.bodies import JsonResponse
from composer.http.fields import bad, flag, integer, listed, require, token_lists
from composer.http.fields import text as text_field
from composer.http.headers import told
from composer.http.requests import Ask, text_ask
from composer.http.side_by_side import one_of, open_streams
from composer.http.text_shapes import TextEvents, TextShape
from composer.streaming import Progress
from composer.tokens import text_of
from experts_registry.types import Prompt

__all__ = ["completions"]

MAX_PROMPTS = 128


async def completions(asked: Asked) -> ASGIApp:
    """Complete texts."""
    body, created = asked.body, int(time.time())
    texts = await _texts(asked)
    asks = [text_ask(body, text) for text in texts]
    first, n = asks[0], asks[0].prompt.sampling.n
    if len(asks) * n > MAX_PROMPTS:
        raise bad("n", f"asks more than {MAX_PROMPTS} answers in all; ask for fewer")
    prefixes = [text if flag(body, "echo") else "" for text in texts for _ in range(n)]
    shape = TextShape(prefixes, integer(body, "logprobs", 0, 5))
    drawn = candidates(body, n)
    if first.is_streamed:
        if drawn > n:
            raise bad("best_of", "cannot be streamed: the best is known last; use stream: false")
        return await _stream(asked, asks, shape, created)
    prompts = [_drawn(ask, drawn, n) for ask in asks]
    answers = await answers_of(asked, prompts, first.model)
    headers = told(asked.composer, answers, asked.began)
    whole = one_of([best(answer, n, shape.logprobs is not None) for answer in answers])
    return JsonResponse(shape.completion(whole, created), headers=headers)


async def _stream(asked: Asked, asks: Sequence[Ask], shape: TextShape, created: int) -> ASGIApp:
    def write(progress: Progress) -> TextEvents:
        ledger = progress.ledger
        return TextEvents(ledger.id, progress.expert, created, asks[0].has_usage, shape)

    return await open_streams(asked, [ask.prompt for ask in asks], asks[0].model, write)


def _drawn(ask: Ask, drawn: int, n: int) -> Prompt:
    """Return the prompt; to choose among answers, one must know how likely they are."""
    if drawn == n:
        return ask.prompt
    sampling = replace(ask.prompt.sampling, n=drawn, logprobs=True)
    return replace(ask.prompt, sampling=sampling)


async def _texts(asked: Asked) -> list[str]:
    """Return the prompts; those that are tokens are read by the expert that is asked."""
    value = require(asked.body, "prompt")
    texts = [value] if isinstance(value, str) else listed(asked.body, "prompt", None)
    if tokens := token_lists("prompt", texts):
        require(asked.body, "model")
        model = text_field(asked.body, "model") or ""
        asked.visit.require_model(model)
        texts = [await text_of(asked.composer, ids, model=model) for ids in tokens]
    if len(texts) > MAX_PROMPTS:
        raise bad(
            "prompt",
            f"has {len(texts)} items; give at most {MAX_PROMPTS}",
            "array_above_max_length",
        )
    for text in texts:
        if not isinstance(text, str):
            raise bad("prompt", "holds what is neither text nor tokens", "invalid_type")
        if not text.strip():
            raise bad("prompt", "is empty; write a question or a task")
    return texts
