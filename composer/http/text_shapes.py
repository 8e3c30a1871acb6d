"""OpenAI's text completions as JSON values: whole ones, and the events of a stream."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from composer.http.logprobs import text_logprobs
from composer.http.shapes import event, usage_of
from composer.trace import Answer
from experts_registry.types import Chunk, Generation, TokenLogprob

__all__ = ["TextEvents", "TextShape"]


@dataclass(frozen=True)
class TextShape:
    """What a request says about the shape of its completions.

    Args:
        prefixes: one a choice, written before it: the prompt where it is echoed.
        logprobs: how many of the likeliest tokens to tell beside each; None for none at all.
    """

    prefixes: Sequence[str]
    logprobs: int | None = None

    def completion(self, answer: Answer, created: int) -> dict[str, Any]:
        """Return an answer, with all its choices, as a text completion."""
        choices = zip(self.prefixes, answer.generation.choices, strict=True)
        return {
            "id": f"cmpl-{answer.id}",
            "object": "text_completion",
            "created": created,
            "model": answer.expert,
            "choices": [
                self._choice(index, prefix, choice)
                for index, (prefix, choice) in enumerate(choices)
            ],
            "usage": usage_of(answer.generation),
        }

    def _choice(self, index: int, prefix: str, choice: Generation) -> dict[str, Any]:
        return {
            "index": index,
            "text": prefix + choice.text,
            "logprobs": self.told(choice.logprobs, len(prefix)),
            "finish_reason": choice.finish_reason,
        }

    def told(self, found: Sequence[TokenLogprob] | None, offset: int) -> dict[str, Any] | None:
        """Return log-probabilities where they were asked for."""
        if self.logprobs is None:
            return None
        return text_logprobs(found, offset, top=self.logprobs > 0)


@dataclass(frozen=True)
class TextEvents:
    """The events of streamed text completions.

    Args:
        id: of the answer.
        model: the expert that answers.
        created: when, in seconds since 1970.
        has_usage: whether a last event tells the usage; the others then say ``usage: null``.
        shape: of the choices.
    """

    id: str
    model: str
    created: int
    has_usage: bool
    shape: TextShape
    _told: Counter[int] = field(default_factory=Counter)  # log-probabilities, by choice
    _offsets: Counter[int] = field(default_factory=Counter)  # characters of their tokens

    def first(self) -> bytes:
        """Repeat the prompts where that was asked."""
        return b"".join(self._write(i, prefix) for i, prefix in enumerate(self.shape.prefixes))

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        return self._write(chunk.index, chunk.text, logprobs=chunk.logprobs)

    def last(self, answer: Answer) -> Iterator[bytes]:
        """Say why each ends, and what it took where that was asked."""
        for index, choice in enumerate(answer.generation.choices):
            untold = (choice.logprobs or ())[self._told[index] :] or None
            yield self._write(index, "", choice.finish_reason, untold)
        if self.has_usage:
            yield event({**self._head(), "choices": [], "usage": usage_of(answer.generation)})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self.id}",
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        }

    def _write(
        self,
        index: int,
        text: str,
        finish_reason: str | None = None,
        logprobs: Sequence[TokenLogprob] | None = None,
    ) -> bytes:
        offset = len(self.shape.prefixes[index]) + self._offsets[index]
        self._told[index] += len(logprobs or ())
        self._offsets[index] += sum(len(one.token) for one in logprobs or ())
        choice = {
            "index": index,
            "text": text,
            "logprobs": self.shape.told(logprobs, offset),
            "finish_reason": finish_reason,
        }
        value = {**self._head(), "choices": [choice]}
        return event({**value, "usage": None} if self.has_usage else value)
