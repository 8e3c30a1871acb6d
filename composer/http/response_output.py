"""What a response consists of: messages, function calls, reasoning, as pieces of an answer come.

Every change gives the events that tell a client of it, so that a stream and a whole response are
the same items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from composer.http.logprobs import logprob_entries
from experts_registry.types import Chunk, Generation

__all__ = ["Event", "Output"]

Event = tuple[str, dict[str, Any]]
Kind = Literal["output_text", "refusal", "reasoning_text"]

_SPOKEN = {"type": "message", "role": "assistant"}
_REASONING = ("reasoning_content", "reasoning")  # as servers call it


@dataclass
class _Message:
    """A message, or reasoning, of one part."""

    id: str
    index: int
    kind: Kind
    status: str = "in_progress"
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}

    def part(self) -> dict[str, Any]:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        if self.kind == "reasoning_text":
            return {"type": "reasoning_text", "text": self.text}
        marks: dict[str, Any] = {"annotations": [], "logprobs": self.logprobs}
        return {"type": "output_text", "text": self.text, **marks}

    def json(self) -> dict[str, Any]:
        is_reasoning = self.kind == "reasoning_text"
        return {
            "id": self.id,
            **({"type": "reasoning", "summary": []} if is_reasoning else _SPOKEN),
            "status": self.status,
            "content": [] if self.status == "in_progress" else [self.part()],
        }

    def opening(self) -> list[Event]:
        added = ("response.output_item.added", {"output_index": self.index, "item": self.json()})
        return [added, ("response.content_part.added", {**self.place, "part": self.part()})]

    def grow(self, text: str) -> Event:
        self._pieces.append(text)
        marks: dict[str, Any] = {"logprobs": []} if self.kind == "output_text" else {}
        return f"response.{self.kind}.delta", {**self.place, "delta": text, **marks}

    def closing(self) -> list[Event]:
        part = self.part()
        said = {key: value for key, value in part.items() if key not in ("type", "annotations")}
        return [
            (f"response.{self.kind}.done", {**self.place, **said}),
            ("response.content_part.done", {**self.place, "part": part}),
            ("response.output_item.done", {"output_index": self.index, "item": self.json()}),
        ]


@dataclass
class _Call:
    """A call of a function."""

    id: str
    index: int
    call_id: str
    name: str
    status: str = "in_progress"
    _pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }

    def opening(self) -> list[Event]:
        return [("response.output_item.added", {"output_index": self.index, "item": self.json()})]

    def grow(self, text: str) -> Event:
        self._pieces.append(text)
        return "response.function_call_arguments.delta", {**self.place, "delta": text}

    def closing(self) -> list[Event]:
        said = {"name": self.name, "arguments": self.arguments}
        return [
            ("response.function_call_arguments.done", {**self.place, **said}),
            ("response.output_item.done", {"output_index": self.index, "item": self.json()}),
        ]


@dataclass
class Output:
    """The items of one response.

    Args:
        id: of the answer; items are named after it.
    """

    id: str
    _items: list[_Message | _Call] = field(default_factory=list)
    _calls: dict[object, _Call] = field(default_factory=dict)

    @classmethod
    def of(cls, id: str, generation: Generation) -> "Output":
        """Return the items of a whole answer."""
        output = cls(id)
        output.add(Chunk(generation.text, extra=generation.extra))
        output.end(generation)
        return output

    def json(self) -> list[dict[str, Any]]:
        """Return the items."""
        return [item.json() for item in self._items]

    def add(self, chunk: Chunk) -> list[Event]:
        """Take a piece of the answer."""
        thought = next((t for key in _REASONING if isinstance(t := chunk.extra.get(key), str)), "")
        events = self._say("reasoning_text", thought) + self._say("output_text", chunk.text)
        if isinstance(refusal := chunk.extra.get("refusal"), str):
            events += self._say("refusal", refusal)
        for fragment in _mappings(chunk.extra.get("tool_calls")):
            events += self._call(fragment)
        return events

    def end(self, generation: Generation) -> list[Event]:
        """Close what is open; an answer of nothing is an empty message."""
        events: list[Event] = []
        if not self._items:
            events += self._open(_Message(f"msg_{self.id}", 0, "output_text"))
        texts = [i for i in self._items if isinstance(i, _Message) and i.kind == "output_text"]
        if texts and generation.logprobs:
            texts[-1].logprobs = logprob_entries(generation.logprobs, unknown=())
        cut = generation.finish_reason in ("length", "content_filter")
        for item in self._items:
            events += self._close(item, "incomplete" if cut else "completed")
        return events

    def _say(self, kind: Kind, text: str) -> list[Event]:
        if not text:
            return []
        events: list[Event] = []
        item = self._items[-1] if self._items else None
        if not isinstance(item, _Message) or item.kind != kind:
            events += self._close_message()
            index = len(self._items)
            prefix = "rs" if kind == "reasoning_text" else "msg"
            item = _Message(f"{prefix}_{self.id}{index or ''}", index, kind)
            events += self._open(item)
        return [*events, item.grow(text)]

    def _call(self, fragment: Mapping[str, Any]) -> list[Event]:
        function = fragment.get("function")
        function = function if isinstance(function, Mapping) else {}
        key = fragment.get("index")
        if key is None:  # some servers do not count; a new id then begins a new call
            key = fragment.get("id") or next(reversed(self._calls), None)
        events: list[Event] = []
        if key not in self._calls:
            events += self._close_message()
            index = len(self._items)
            item = _Call(
                id=f"fc_{self.id}{index}",
                index=index,
                call_id=fragment.get("id") or f"call_{self.id}{index}",
                name=function.get("name") or "",
            )
            self._calls[key] = item
            events += self._open(item)
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            events.append(self._calls[key].grow(arguments))
        return events

    def _open(self, item: _Message | _Call) -> list[Event]:
        self._items.append(item)
        return item.opening()

    def _close_message(self) -> list[Event]:
        """End the text before something else begins; calls may still grow side by side."""
        last = self._items[-1] if self._items else None
        return self._close(last, "completed") if isinstance(last, _Message) else []

    def _close(self, item: _Message | _Call, status: str) -> list[Event]:
        if item.status != "in_progress":
            return []
        item.status = status
        return item.closing()


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
