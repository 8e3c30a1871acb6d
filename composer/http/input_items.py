"""The input of a response as messages of a chat: what experts understand."""

from collections.abc import Mapping, Sequence
from typing import Any

from composer.http.errors import ApiError
from composer.http.fields import UNSUPPORTED, Body, bad, listed, require
from composer.http.fields import text as text_field
from composer.http.requests import MAX_MESSAGES

__all__ = ["messages_of"]

Message = dict[str, Any]

# Not every server knows developers; OpenAI's own takes both for the same.
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def messages_of(body: Body) -> list[Message]:
    """Return the conversation, after the instructions.

    Raises:
        ApiError: an item is not of a kind that a chat has.
    """
    instructions = text_field(body, "instructions")
    messages = [{"role": "system", "content": instructions}] if instructions else []
    value = require(body, "input")
    if isinstance(value, str):
        return [*messages, {"role": "user", "content": value}]
    for index, item in enumerate(listed(body, "input", MAX_MESSAGES)):
        where = f"input[{index}]"
        if not isinstance(item, Mapping):
            raise _wrong(where, item, "an object")
        _add(messages, item, where)
    return messages


def _add(messages: list[Message], item: Mapping[str, Any], where: str) -> None:
    kind = "message" if item.get("type") is None else item["type"]
    if kind == "message":
        messages.append(_message(item, where))
    elif kind == "function_call":
        _caller(messages)["tool_calls"].append(_call(item, where))
    elif kind == "function_call_output":
        content = _content(item.get("output"), f"{where}.output")
        name = _text(item, "call_id", where)
        messages.append({"role": "tool", "tool_call_id": name, "content": content})
    elif kind != "reasoning":  # another server's notes on an earlier turn: no chat can take them
        raise bad(
            where,
            "is of a type that is not supported; use message, function_call or "
            "function_call_output",
            "unsupported_value",
        )


def _message(item: Mapping[str, Any], where: str) -> Message:
    role = _text(item, "role", where)
    if role not in _ROLES:
        raise bad(f"{where}.role", f"is not one of {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": _content(item.get("content"), f"{where}.content")}


def _caller(messages: list[Message]) -> Message:
    """Return the turn that calls: calls that stand side by side, or after a text, are of one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]


def _call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        "id": _text(item, "call_id", where),
        "type": "function",
        "function": {
            "name": _text(item, "name", where),
            "arguments": _text(item, "arguments", where),
        },
    }


def _content(value: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise _wrong(where, value, "a string or an array of parts")
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts):  # as one text, which every server takes
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        raise _wrong(where, part, "an object")
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": _text(part, "text", where)}
        case "refusal":
            return {"type": "refusal", "refusal": _text(part, "refusal", where)}
        case "input_image" if part.get("image_url") is not None:
            image = {"url": _text(part, "image_url", where), "detail": part.get("detail")}
            return {
                "type": "image_url",
                "image_url": {key: value for key, value in image.items() if value is not None},
            }
    raise bad(
        where,
        "is a part of a type that is not supported; use input_text, or input_image with an "
        "image_url",
        UNSUPPORTED,
    )


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if value is None:
        raise bad(f"{where}.{name}", "is missing; say it", "missing_required_parameter")
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", value, "a string")
    return value


def _wrong(where: str, value: Any, what: str) -> ApiError:
    return bad(where, f"is a {type(value).__name__}; use {what}", "invalid_type")
