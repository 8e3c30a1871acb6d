"""The values that cross every boundary, and what an expert can do.

An expert is an `LLM`, an `Embedder` or a `Reranker`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import OptionError, PromptError, nearest

__all__ = [
    "LLM",
    "Chunk",
    "Embedder",
    "FloatArray",
    "Generation",
    "Message",
    "Prompt",
    "Reranker",
    "Role",
    "Sampling",
    "TokenLogprob",
    "Usage",
]

FloatArray = NDArray[np.floating[Any]]
Role = Literal["query", "passage"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, in OpenAI's vocabulary.

    ``extra`` holds the keys that we do not read (``tool_calls``, ``name``, image parts ...);
    remote experts receive them untouched.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def media(self) -> tuple[str, ...]:
        """The types of its parts that are not text."""
        parts = [p for p in self.extra.get("content") or () if isinstance(p, Mapping)]
        return tuple(str(p.get("type")) for p in parts if p.get("type") != "text")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw an answer. ``None`` leaves the choice to the expert.

    Args:
        max_tokens: most tokens to generate.
        temperature: 0 is greedy.
        top_p: nucleus mass, in (0, 1].
        stop: strings that end the answer and are not part of it.
        seed: makes sampling repeatable where the expert can.
        logprobs: ask for the log-probability of every generated token.
        top_logprobs: and for this many of the likeliest tokens at each place.
        n: how many answers to draw.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    n: int = 1

    def __post_init__(self) -> None:
        for name, kind, plain in _NUMBERS:
            value = getattr(self, name)
            if value is None or type(value) in plain:  # at once; numpy's numbers are looked at
                continue
            if isinstance(value, bool) or not isinstance(value, kind):
                what = "a whole number" if kind is Integral else "a number"
                told = type(value).__name__
                raise OptionError(f"{name}: is a {told}; use {what}, or leave it out")
        if self.stop != ():
            object.__setattr__(self, "stop", _stop_texts(self.stop))
        for name, least in (("max_tokens", 0), ("top_logprobs", 0), ("n", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name}: {value} is below {least}; use {least} or more")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise OptionError(f"temperature: {self.temperature} is not in [0, 2]")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise OptionError(f"top_p: {self.top_p} is not in (0, 1]")


_NUMBERS = (
    ("max_tokens", Integral, (int,)),
    ("seed", Integral, (int,)),
    ("top_logprobs", Integral, (int,)),
    ("n", Integral, (int,)),
    ("temperature", Real, (int, float)),
    ("top_p", Real, (int, float)),
)


def _stop_texts(stop: Any) -> tuple[str, ...]:
    stop = stop or ()  # null, as clients send it, is none
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, list | tuple) or not all(isinstance(t, str) for t in stop):
        raise OptionError(f"stop: is a {type(stop).__name__}; use a text or a list of texts")
    return tuple(stop)


@dataclass(frozen=True)
class Prompt:
    """A conversation and how to answer it.

    ``extra`` are request keys that we do not read (``tools``, ``response_format`` ...); remote
    experts receive them untouched.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        text_or_messages: "str | Sequence[Message | Mapping[str, Any]] | Prompt",
        **sampling: Any,
    ) -> Self:
        """Build a prompt from a text, a list of messages (dicts in OpenAI's shape) or a prompt.

        Raises:
            PromptError: there is nothing to ask.
            OptionError: a sampling setting is unknown or out of its range.
        """
        known = [f.name for f in fields(Sampling)] if sampling else []
        for name in sampling:
            if name not in known:
                raise OptionError(
                    f"sampling: {name!r} is not one of {', '.join(known)}{nearest(name, known)}"
                )
        if isinstance(text_or_messages, cls):
            prompt = text_or_messages
            if sampling:
                prompt = replace(prompt, sampling=replace(prompt.sampling, **sampling))
        elif isinstance(text_or_messages, str):
            prompt = cls((Message("user", text_or_messages),), Sampling(**sampling))
        elif isinstance(text_or_messages, Sequence) and not isinstance(text_or_messages, bytes):
            messages = tuple(_message(i, value) for i, value in enumerate(text_or_messages))
            prompt = cls(messages, Sampling(**sampling)) if sampling else cls(messages)
        else:
            kind = type(text_or_messages).__name__
            raise PromptError(f"query: is a {kind}; use a text, a list of messages or a Prompt")
        turns = prompt._turns
        if not prompt.query.strip() and not (turns and turns[-1].media):
            raise PromptError("query: the last user message is empty; write a question or a task")
        return prompt

    @cached_property
    def query(self) -> str:
        """The text that routers read: the last user turn, or what stands in for one.

        Of a turn that is only an image the text before it tells more than nothing, and of a
        conversation without a user the last text.
        """
        return next((m.content for m in reversed(self._turns) if m.content or not m.media), "")

    @property
    def _turns(self) -> Sequence[Message]:
        """The turns that ask."""
        return [m for m in self.messages if m.role == "user"] or self.messages

    def limited(self, *, max_tokens: int | None = None) -> "Prompt":
        """Return this prompt with ``max_tokens`` filled in where it was not given."""
        if max_tokens is None or self.sampling.max_tokens is not None:
            return self
        return replace(self, sampling=replace(self.sampling, max_tokens=max_tokens))


def _message(index: int, value: Any) -> Message:
    if isinstance(value, Message):
        return value
    where = f"messages[{index}]"  # never what is in it: errors reach logs
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise PromptError(f"{where}: is a {kind}; use {{'role': ..., 'content': ...}}")
    rest = dict(value)
    role, content = rest.pop("role", None), rest.pop("content", None)
    if not isinstance(role, str):
        raise PromptError(f"{where}: has no 'role'; use system, user, assistant or tool")
    if isinstance(content, str) or content is None:
        return Message(role, content or "", rest)
    if not isinstance(content, list):
        raise PromptError(f"{where}: content is a {type(content).__name__}; use a string")
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise PromptError(
                f"{where}: a content part has no 'type'; use {{'type': 'text', 'text': ...}}"
            )
    parts = [part for part in content if part.get("type") == "text"]
    texts = [p["text"] for p in parts if isinstance(p.get("text"), str)]
    if len(texts) < len(parts):
        raise PromptError(f"{where}: a content part of type text has no 'text'; write one")
    return Message(role, "\n".join(texts), {**rest, "content": content})


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens read and written by one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens read plus tokens written."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token and its natural log-probability under the expert.

    Args:
        token: its text; of a part of a character a replacement for it.
        logprob: its own.
        bytes: of the token, where the expert tells them.
        top: the likeliest tokens at this place, where they were asked for.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one expert answered.

    ``extra`` holds parts of a remote answer that are not text (``tool_calls``, ``refusal`` ...),
    ``reply`` what else a remote reply says of the call (``system_fingerprint`` ...), and
    ``usage_details`` how it splits its tokens.
    ``logprobs`` is ``None`` unless they were asked for. Where several answers were asked for at
    once, ``others`` are those after the first, and ``usage`` of the first is that of all.
    """

    text: str
    usage: Usage = Usage()
    finish_reason: str = "stop"
    logprobs: tuple[TokenLogprob, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    others: "tuple[Generation, ...]" = ()
    reply: Mapping[str, Any] = field(default_factory=dict)
    usage_details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> "tuple[Generation, ...]":
        """All answers of the call, each alone."""
        return (replace(self, others=()), *self.others) if self.others else (self,)


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream. The last one carries the whole `Generation` and an empty text.

    ``extra`` holds a remote delta's keys that are not text (tool call fragments ...), ``index``
    says to which of several answers it belongs, and ``logprobs`` are of the tokens that it ends.
    """

    text: str
    generation: Generation | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


@runtime_checkable
class LLM(Protocol):
    """An expert that answers. Safe to call from several threads and event loops at once."""

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt."""
        ...

    def stream(self, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer a prompt piece by piece; closing the iterator stops the work."""
        ...

    async def aclose(self) -> None:
        """Free what the expert holds."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """An expert that embeds. Synchronous and batched: it computes.

    One that embeds passages exactly as another does (an adapter on the query side) says so by a
    ``passage_digest``, the other's digest: they can search one index.
    """

    @property
    def digest(self) -> str:
        """Identify the vectors: two embedders with one digest are interchangeable."""
        ...

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one L2-normalised float32 row per text, (n, d)."""
        ...

    def close(self) -> None:
        """Free what the expert holds."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """An expert that scores texts for a query. Synchronous and batched: it computes."""

    def relevance(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Return one score per text, (n,); the higher, the better it answers the query."""
        ...

    def close(self) -> None:
        """Free what the expert holds."""
        ...
