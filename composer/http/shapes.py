"""OpenAI's answers as JSON values: whole ones, and the events of a stream."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from composer.http.bodies import json_bytes
from composer.trace import Answer
from experts_registry.types import Chunk, Generation, TokenLogprob, Usage

__all__ = ["DONE", "ChatEvents", "TextEvents", "chat_completion", "text_completion"]

DONE = b"data: [DONE]\n\n"


def _event(value: Any) -> bytes:
    """Write one server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


def chat_completion(answers: Sequence[Answer], created: int) -> dict[str, Any]:
    """Return one request's answers as a chat completion; the first one's expert signs it."""
    return {
        "id": f"chatcmpl-{answers[0].id}",
        "object": "chat.completion",
        "created": created,
        "model": answers[0].expert,
        "choices": [
            {
                "index": index,
                "message": _message(answer.generation),
                "logprobs": _logprobs(answer.generation.logprobs),
                "finish_reason": answer.generation.finish_reason,
            }
            for index, answer in enumerate(answers)
        ],
        "usage": _usage(answers),
    }


def text_completion(
    answers: Sequence[Answer], prefixes: Sequence[str], created: int
) -> dict[str, Any]:
    """Return answers as text completions, each after its prefix."""
    return {
        "id": f"cmpl-{answers[0].id}",
        "object": "text_completion",
        "created": created,
        "model": answers[0].expert,
        "choices": [
            {
                "index": index,
                "text": prefix + answer.text,
                "logprobs": None,
                "finish_reason": answer.generation.finish_reason,
            }
            for index, (prefix, answer) in enumerate(zip(prefixes, answers, strict=True))
        ],
        "usage": _usage(answers),
    }


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Return the tokens of the calls that answered."""
    found = [answer.generation.usage for answer in answers]
    whole = Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in found),
        completion_tokens=sum(usage.completion_tokens for usage in found),
    )
    return {
        "prompt_tokens": whole.prompt_tokens,
        "completion_tokens": whole.completion_tokens,
        "total_tokens": whole.total_tokens,
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


def _logprobs(found: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    content = [
        {
            "token": entry.token,
            "logprob": entry.logprob,
            "bytes": list(entry.token.encode("utf-8", "replace")),
            "top_logprobs": [],
        }
        for entry in found
    ]
    return {"content": content, "refusal": None}


@dataclass(frozen=True)
class ChatEvents:
    """The events of one streamed chat answer.

    Args:
        id: of the answer.
        model: the expert that answers.
        created: when, in seconds since 1970.
        has_usage: whether a last event tells the usage; the others then say ``usage: null``.
    """

    id: str
    model: str
    created: int
    has_usage: bool

    def first(self) -> bytes:
        """Say who speaks."""
        return self._write(delta={"role": "assistant", "content": "", "refusal": None})

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        delta = {"content": chunk.text, **chunk.extra} if chunk.text else chunk.extra
        return self._write(delta=delta)

    def last(self, answer: Answer) -> Iterator[bytes]:
        """Say why it ends, and what it took where that was asked; log-probabilities come here."""
        generation = answer.generation
        yield self._write(
            delta={},
            finish_reason=generation.finish_reason,
            logprobs=_logprobs(generation.logprobs),
        )
        if self.has_usage:
            yield _event({**self._head(), "choices": [], "usage": _usage([answer])})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }

    def _write(
        self,
        *,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        value = {**self._head(), "choices": [choice]}
        return _event({**value, "usage": None} if self.has_usage else value)


@dataclass(frozen=True)
class TextEvents:
    """The events of one streamed text completion; arguments as of `ChatEvents`."""

    id: str
    model: str
    created: int
    has_usage: bool
    prefix: str = ""

    def first(self) -> bytes:
        """Repeat the prompt where that was asked."""
        return self._write(self.prefix)

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        return self._write(chunk.text)

    def last(self, answer: Answer) -> Iterator[bytes]:
        """Say why it ends, and what it took where that was asked."""
        yield self._write("", answer.generation.finish_reason)
        if self.has_usage:
            yield _event({**self._head(), "choices": [], "usage": _usage([answer])})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self.id}",
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        }

    def _write(self, text: str, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        value = {**self._head(), "choices": [choice]}
        return _event({**value, "usage": None} if self.has_usage else value)
