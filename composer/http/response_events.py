"""A response as JSON, whole or as the typed events of a stream."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from composer.http.bodies import json_bytes
from composer.http.errors import ApiError
from composer.http.passages import retrieval_json
from composer.http.response_output import Event, Output
from composer.trace import Answer
from experts_registry.types import Chunk, Usage

__all__ = ["ResponseEvents", "whole_response"]

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole_response(answer: Answer, created: int, echo: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer as a response.

    Args:
        answer: the answer.
        created: when it was asked for, in seconds since 1970.
        echo: the fields that repeat the request.
    """
    head = _Head(answer.id, answer.expert, created, echo)
    return head.ended(answer, Output.of(answer.id, answer.generation))


@dataclass(frozen=True)
class _Head:
    """What all states of one response have in common; arguments as of `ResponseEvents`."""

    id: str
    model: str
    created: int
    echo: Mapping[str, Any]

    def json(self, status: str, *, output: Output | None = None, **fields: Any) -> dict[str, Any]:
        """Return the response in a state."""
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [] if output is None else output.json(),
            **self.echo,
            "usage": None,
            **fields,
        }

    def ended(self, answer: Answer, output: Output) -> dict[str, Any]:
        """Return the response with its whole answer."""
        why = _CUT.get(answer.generation.finish_reason)
        told = {"usage": _usage(answer.generation.usage), **retrieval_json(answer)}
        if why is not None:
            return self.json(
                "incomplete", output=output, incomplete_details={"reason": why}, **told
            )
        return self.json("completed", output=output, completed_at=int(time.time()), **told)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


@dataclass
class ResponseEvents:
    """The events of one streamed response.

    Args:
        id: of the answer.
        model: the expert that answers.
        created: when, in seconds since 1970.
        echo: the fields that repeat the request.
    """

    id: str
    model: str
    created: int
    echo: Mapping[str, Any]
    _output: Output = field(init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._output = Output(self.id)

    def first(self) -> bytes:
        """Open the stream."""
        response = self._head.json("in_progress")
        kinds = ("response.created", "response.in_progress")
        return b"".join(self._write((kind, {"response": response}) for kind in kinds))

    def piece(self, chunk: Chunk) -> bytes:
        """Pass a piece on."""
        return b"".join(self._write(self._output.add(chunk)))

    def last(self, answer: Answer) -> Iterator[bytes]:
        """Close what is open, and tell the whole response."""
        yield from self._write(self._output.end(answer.generation))
        response = self._head.ended(answer, self._output)
        yield from self._write([(f"response.{response['status']}", {"response": response})])

    def failed(self, error: ApiError) -> bytes:
        """Say that there will be no more, and why."""
        # The other codes that clients know are about what was asked: by now it was accepted.
        is_busy = error.code == "rate_limit_exceeded"
        told = {"code": error.code if is_busy else "server_error", "message": str(error)}
        response = self._head.json("failed", output=self._output, error=told)
        return b"".join(self._write([("response.failed", {"response": response})]))

    @property
    def _head(self) -> _Head:
        return _Head(self.id, self.model, self.created, self.echo)

    def _write(self, events: Iterable[Event]) -> Iterator[bytes]:
        for kind, fields in events:
            value = {"type": kind, "sequence_number": self._count, **fields}
            self._count += 1
            yield b"event: " + kind.encode() + b"\ndata: " + json_bytes(value) + b"\n\n"
