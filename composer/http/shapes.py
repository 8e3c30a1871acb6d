"""OpenAI's chat answers as JSON values: whole ones, and the events of a stream."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from composer.http.bodies import json_bytes
from composer.http.logprobs import chat_logprobs
from composer.http.passages import retrieval_json
from composer.trace import Answer
from experts_registry.types import Chunk, Generation

__all__ = ["DONE", "ChatEvents", "chat_completion", "event", "usage_of"]

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """Write one server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


def chat_completion(answer: Answer, created: int) -> dict[str, Any]:
    """Return an answer, with all its choices, as a chat completion."""
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": created,
        "model": answer.expert,
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": chat_logprobs(choice.logprobs),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(answer.generation.choices)
        ],
        "usage": usage_of(answer.generation),
        **answer.generation.reply,
        **retrieval_json(answer),
    }


def usage_of(generation: Generation) -> dict[str, Any]:
    """Return the tokens of a call that answered."""
    usage = generation.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **generation.usage_details,
    }


def _message(generation: Generation) -> dict[str, Any]:
    is_empty = not generation.text and generation.extra  # a tool call or a refusal instead
    content = None if is_empty else generation.text
    extra: Mapping[str, Any] = generation.extra
    if "tool_calls" in extra:
        calls = [_without_index(call) for call in extra["tool_calls"]]
        extra = {**extra, "tool_calls": calls}
    return {"refusal": None, **extra, "role": "assistant", "content": content}


def _without_index(call: Any) -> Any:
    """Drop what only the pieces of a streamed call need."""
    if not isinstance(call, Mapping):
        return call
    return {key: value for key, value in call.items() if key != "index"}


@dataclass(frozen=True)
class ChatEvents:
    """The events of one streamed chat answer, or of several side by side.

    Args:
        id: of the answer.
        model: the expert that answers.
        created: when, in seconds since 1970.
        has_usage: whether a last event tells the usage; the others then say ``usage: null``.
        n: how many answers were asked for.
    """

    id: str
    model: str
    created: int
    has_usage: bool
    n: int = 1
    _told: Counter[int] = field(default_factory=Counter)  # log-probabilities, by choice

    def first(self) -> bytes:
        """Say who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._write(index, delta=delta) for index in range(self.n))

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        delta = {"content": chunk.text, **chunk.extra} if chunk.text else chunk.extra
        self._told[chunk.index] += len(chunk.logprobs or ())
        return self._write(chunk.index, delta=delta, logprobs=chat_logprobs(chunk.logprobs))

    def last(self, answer: Answer) -> Iterator[bytes]:
        """Say why each ends, and what it took where that was asked."""
        for index, choice in enumerate(answer.generation.choices):
            untold = (choice.logprobs or ())[self._told[index] :]
            yield self._write(
                index,
                delta={},
                finish_reason=choice.finish_reason,
                logprobs=chat_logprobs(untold or None),
                reply={**answer.generation.reply, **retrieval_json(answer)},
            )
        if self.has_usage:
            told = {"choices": [], "usage": usage_of(answer.generation)}
            yield event({**self._head(), **told, **answer.generation.reply})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }

    def _write(
        self,
        index: int,
        *,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        reply: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        value = {**self._head(), "choices": [choice], **(reply or {})}
        return event({**value, "usage": None} if self.has_usage else value)
