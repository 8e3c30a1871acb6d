"""An expert that repeats the question: for trying a composition out, and for tests.

It needs no model, costs no time, and is the same on every machine. Tokens are words, and it is
certain of each: their log-probability is 0, and temperature, biases and penalties change nothing.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, Field

from experts_registry.backends.options import check_offers, closed, parse_options, refuse
from experts_registry.backends.requested import require_answerable
from experts_registry.errors import (
    ContextLengthError,
    ExpertBusyError,
    ExpertError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
)
from experts_registry.schema import ExpertSpec
from experts_registry.types import Chunk, Generation, Prompt, Sampling, TokenLogprob, Usage

__all__ = ["EchoLLM", "Options"]

# A word with the space before it, so that the pieces of a text join to the text.
_WORD = re.compile(r"\s*\S+|\s+$")
_HONOURED = ("frequency_penalty", "logit_bias", "presence_penalty", "response_format", "suffix")

_FAILURES: dict[str, type[ExpertError]] = {
    "busy": ExpertBusyError,
    "reply": ExpertReplyError,
    "request": ExpertRequestError,
    "timeout": ExpertTimeoutError,
    "unavailable": ExpertUnavailableError,
}


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    prefix: str = Field("", description="Written before every answer.")
    reply: str | None = Field(None, description="A fixed answer instead of the question.")
    delay: float = Field(0.0, ge=0, description="Seconds of thought before every answer.")
    fail: Literal["busy", "reply", "request", "timeout", "unavailable"] | None = Field(
        None, description="Fail with this error instead of answering."
    )
    fail_times: int | None = Field(
        None, ge=0, description="Fail only the first calls, this many; by default all of them."
    )
    fail_after: int = Field(0, ge=0, description="Words that a stream delivers before it fails.")


class EchoLLM:
    """Answers with the last user turn, or with a fixed reply."""

    offers: tuple[str, ...] = ("text", "logprobs")

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec = spec
        self.options = parse_options(Options, spec)
        self._offers = check_offers(spec, self.offers)
        self._calls = count()
        self._closed = False

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt."""
        generation, fails = self._answer(prompt), self._is_failing()
        await asyncio.sleep(self.options.delay)
        if fails:
            raise self._failure()
        return generation

    async def stream(self, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer a prompt word by word."""
        generation, fails = self._answer(prompt), self._is_failing()
        await asyncio.sleep(self.options.delay)
        words = _WORD.findall(generation.text)
        for word in words[: self.options.fail_after] if fails else words:
            for index in range(prompt.sampling.n):
                yield Chunk(word, index=index, logprobs=_certain([word], prompt.sampling))
        if fails:
            raise self._failure()
        yield Chunk("", generation)

    async def aclose(self) -> None:
        """Answer no more."""
        self._closed = True

    def _answer(self, prompt: Prompt) -> Generation:
        options, asked = self.options, self._read(prompt)
        text = options.prefix + (prompt.query if options.reply is None else options.reply)
        sampling = prompt.limited(max_tokens=self.spec.limits.max_tokens).sampling
        text, finish_reason = _shortened(text, sampling)
        self._require_format(prompt.extra.get("response_format"), text)
        words = _WORD.findall(text)
        usage = Usage(prompt_tokens=asked, completion_tokens=len(words) * sampling.n)
        one = Generation(text=text, finish_reason=finish_reason, logprobs=_certain(words, sampling))
        return replace(one, usage=usage, others=(one,) * (sampling.n - 1))

    def _read(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt, if it may be asked at all."""
        if self._closed:
            raise closed(self.spec)
        if prompt.sampling.logprobs and "logprobs" not in self._offers:
            raise refuse(self.spec, "logprobs", self._offers)
        require_answerable(self.spec, prompt, offers=self._offers, honoured=_HONOURED)
        texts = [*(m.content for m in prompt.messages), str(prompt.extra.get("suffix") or "")]
        asked = sum(len(text.split()) for text in texts)
        if self.spec.context_window is not None and asked >= self.spec.context_window:
            raise ContextLengthError(
                f"expert {self.spec.name!r}: the prompt has {asked} tokens and the context window "
                f"{self.spec.context_window}; shorten it or ask an expert with a longer one"
            )
        return asked

    def _require_format(self, wanted: Any, text: str) -> None:
        """Refuse a format that what it says anyway does not happen to have."""
        if wanted in (None, {"type": "text"}):
            return
        if wanted != {"type": "json_object"} or not _is_object(text):
            raise OffersError(
                f"expert {self.spec.name!r}: repeats words and writes no other format; give it a "
                "JSON object as options.reply for json_object, or ask another expert",
                "response_format",
            )

    def _is_failing(self) -> bool:
        if self.options.fail is None:
            return False
        times = self.options.fail_times
        return times is None or next(self._calls) < times

    def _failure(self) -> ExpertError:
        kind = self.options.fail or "unavailable"
        return _FAILURES[kind](
            f"expert {self.spec.name!r}: fails on purpose; remove options.fail ({kind!r})"
        )


def _shortened(text: str, sampling: Sampling) -> tuple[str, str]:
    """Cut a text at the first stop string and at the token limit; say which one ended it."""
    ends = [text.find(stop) for stop in sampling.stop if stop and stop in text]
    text = text[: min(ends, default=len(text))]
    words = _WORD.findall(text)
    if sampling.max_tokens is None or len(words) <= sampling.max_tokens:
        return text, "stop"
    return "".join(words[: sampling.max_tokens]), "length"


def _certain(words: list[str], sampling: Sampling) -> tuple[TokenLogprob, ...] | None:
    if not sampling.logprobs:
        return None
    certain = [TokenLogprob(word, 0.0) for word in words]
    if not sampling.top_logprobs:
        return tuple(certain)
    return tuple(replace(entry, top=(entry,)) for entry in certain)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
