"""OpenAI's chat completions as JSON: the request, the reply, and the reply in pieces."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from experts_registry.backends.endpoint import Endpoint
from experts_registry.backends.openai_errors import error_in
from experts_registry.backends.sse import Event
from experts_registry.errors import ExpertReplyError, ExpertUnavailableError, PromptError
from experts_registry.types import Chunk, Generation, Message, Prompt, TokenLogprob, Usage

__all__ = ["Assembly", "parse_reply", "request_body"]

_ENCODER = json.JSONEncoder(allow_nan=False)  # once: building it is slow
_MOST_TOKENS = 2**53
_LONGEST_WORD = 256


def request_body(endpoint: Endpoint, prompt: Prompt, own: Mapping[str, Any]) -> bytes:
    """Write a request; ``prompt.extra`` goes along untouched, our ``own`` keys win.

    Raises:
        PromptError: something in the prompt has no JSON form.
    """
    body = {**prompt.extra, **_sampling(prompt), "messages": [*map(_turn, prompt.messages)], **own}
    if not body["stream"]:
        body.pop("stream_options", None)
    try:
        return _ENCODER.encode(body).encode()
    except (TypeError, ValueError) as error:
        raise PromptError(f"{endpoint.where}: the request has no JSON form: {error}") from None


def _turn(message: Message) -> dict[str, Any]:
    return {"content": message.content, **message.extra, "role": message.role}


def _sampling(prompt: Prompt) -> dict[str, Any]:
    sampling = prompt.sampling
    values = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": [stop for stop in sampling.stop if stop] or None,
        "seed": sampling.seed,
        "logprobs": sampling.logprobs or None,
        "top_logprobs": sampling.top_logprobs or None,
        "n": sampling.n if sampling.n > 1 else None,
    }
    return {key: value for key, value in values.items() if value is not None}


class _Usage(BaseModel):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None


class _Top(BaseModel):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class _Logprob(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(BaseModel):
    content: list[_Logprob] | None = None


class _Text(BaseModel, extra="allow"):
    role: str | None = None
    content: str | None = None


class _Choice(BaseModel):
    index: int = 0
    message: _Text
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Told(BaseModel):
    """What a reply says of itself; anything but a text is left out."""

    system_fingerprint: Any = None
    service_tier: Any = None

    @property
    def reply(self) -> dict[str, str]:
        told = {"system_fingerprint": self.system_fingerprint, "service_tier": self.service_tier}
        return {k: v for k, v in told.items() if isinstance(v, str) and len(v) <= _LONGEST_WORD}


class _Reply(_Told):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Delta(BaseModel):
    index: int = 0
    delta: _Text | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Piece(_Told):
    choices: list[_Delta] | None = None
    usage: _Usage | None = None
    error: Any = None


def parse_reply(endpoint: Endpoint, prompt: Prompt, body: bytes, content_type: str) -> Generation:
    """Read a whole answer to a prompt, or as many as it asks for.

    Raises:
        ExpertReplyError: it is not one.
    """
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        where, reason = endpoint.asking(prompt), _reason(error)
        raise _not_an_answer(where, body, content_type, reason) from None
    if reply.error:
        raise error_in(endpoint.asking(prompt), reply.error)
    if not reply.choices:
        reason = "'choices' is missing or empty"
        raise _not_an_answer(endpoint.asking(prompt), body, content_type, reason)
    first, *others = sorted(reply.choices, key=lambda choice: choice.index)[: prompt.sampling.n]
    return _generation(
        first,
        usage=_usage(reply.usage),
        others=tuple(map(_generation, others)),
        reply=reply.reply,
        usage_details=_details(reply.usage),
    )


def _generation(choice: _Choice, **of_call: Any) -> Generation:
    return Generation(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "stop",
        logprobs=_logprobs(choice.logprobs),
        extra=_extra(choice.message),
        **of_call,
    )


@dataclass
class _Growing:
    """One of the answers of a stream, so far."""

    texts: list[str] = field(default_factory=list)  # joined once: each sum would copy them all
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def generation(self) -> Generation:
        return Generation(
            text="".join(self.texts),
            finish_reason=self.finish_reason or "stop",
            logprobs=tuple(self.logprobs) or None,
            extra=self.extra,
        )


class Assembly:
    """Puts the pieces of a streamed answer, or of several at once, together."""

    def __init__(self, endpoint: Endpoint, n: int = 1) -> None:
        self.endpoint = endpoint
        self.n = n
        self.usage: _Usage | None = None
        self.reply: dict[str, str] = {}
        self.answers: dict[int, _Growing] = {}

    def add(self, event: Event) -> list[Chunk]:
        """Read one event; return what it says, if that is anything for the caller."""
        data = event.data.encode(errors="replace")
        try:
            piece = _Piece.model_validate_json(data)
        except ValidationError as error:
            reason = _reason(error)
            raise _not_an_answer(self.endpoint, data, "text/event-stream", reason) from None
        if piece.error or event.name == "error":
            raise error_in(self.endpoint, piece.error or json.loads(data))
        self.usage = piece.usage or self.usage
        self.reply |= piece.reply
        # More answers than were asked for are nobody's.
        chunks = [
            self._grow(choice) for choice in piece.choices or () if 0 <= choice.index < self.n
        ]
        return [c for c in chunks if c.text or c.extra or c.logprobs]

    def _grow(self, choice: _Delta) -> Chunk:
        answer = self.answers.setdefault(choice.index, _Growing())
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        logprobs = _logprobs(choice.logprobs)
        answer.logprobs.extend(logprobs or ())
        delta = choice.delta or _Text()
        text, extra = delta.content or "", _extra(delta)
        answer.texts.append(text)
        _merge(answer.extra, extra)
        return Chunk(text, extra=extra, index=choice.index, logprobs=logprobs)

    def generation(self, *, is_done: bool) -> Generation:
        """Return the whole answer.

        Args:
            is_done: whether the server said that there is no more.

        Raises:
            ExpertUnavailableError: the stream ended in the middle.
        """
        answers = [self.answers[index] for index in sorted(self.answers)] or [_Growing()]
        if not is_done and any(answer.finish_reason is None for answer in answers):
            raise ExpertUnavailableError(
                f"{self.endpoint.where}: the stream ended before the answer did; ask again"
            )
        first, *others = [answer.generation() for answer in answers]
        return replace(
            first,
            usage=_usage(self.usage),
            others=tuple(others),
            reply=self.reply,
            usage_details=_details(self.usage),
        )


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def _not_an_answer(
    endpoint: Endpoint, body: bytes, content_type: str, reason: str
) -> ExpertReplyError:
    return ExpertReplyError(
        f"{endpoint.where}: answered with {content_type or 'no content type'} that is not a chat "
        f"completion ({reason}): {endpoint.quote(body.decode(errors='replace'))!r}; "
        "check that options.base_url is an OpenAI-compatible API"
    )


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(
        prompt_tokens=_counted(usage.prompt_tokens),
        completion_tokens=_counted(usage.completion_tokens),
    )


def _details(usage: _Usage | None) -> dict[str, Any]:
    """Return how a server splits the tokens, where it does."""
    names = ("prompt_tokens_details", "completion_tokens_details")
    told = {name: getattr(usage, name, None) for name in names}
    return {
        name: {k: _counted(v) for k, v in value.items() if type(v) is int}
        for name, value in told.items()
        if isinstance(value, Mapping)
    }


def _counted(tokens: int | None) -> int:
    """Return what a server claims, in the range of a database and of a float."""
    return min(max(0, tokens or 0), _MOST_TOKENS)


def _logprobs(logprobs: _Logprobs | None) -> tuple[TokenLogprob, ...] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return tuple(
        TokenLogprob(
            entry.token,
            entry.logprob,
            entry.bytes,
            tuple(TokenLogprob(t.token, t.logprob, t.bytes) for t in entry.top_logprobs or ()),
        )
        for entry in logprobs.content
    )


def _extra(text: _Text) -> dict[str, Any]:
    return {key: value for key, value in (text.model_extra or {}).items() if value is not None}


def _merge(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a piece: texts grow, list items meet by ``index``; names and ids are said once."""
    for key, value in delta.items():
        old = whole.get(key)
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            _merge_items(whole.setdefault(key, []), value)
        elif isinstance(value, Mapping) and isinstance(old, dict):
            _merge(old, value)
        elif isinstance(value, str) and isinstance(old, str) and key not in ("id", "type", "name"):
            whole[key] = old + value
        elif isinstance(value, Mapping):
            whole[key] = dict(value)
        elif value or old is None:
            whole[key] = value


def _merge_items(whole: list[Any], items: list[Any]) -> None:
    for item in items:
        same = next((w for w in whole if "index" in item and w.get("index") == item["index"]), None)
        if same is None:
            whole.append({key: dict(v) if isinstance(v, Mapping) else v for key, v in item.items()})
        else:
            _merge(same, item)
