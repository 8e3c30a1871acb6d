"""What a client of /v1/responses asks for, as the chat request that means the same."""

from collections.abc import Mapping
from typing import Any

from composer.http.errors import ApiError
from composer.http.fields import UNSUPPORTED, Body, bad, flag, integer, listed, text
from composer.http.input_items import messages_of
from composer.http.requests import MAX_TOKENS, Ask, chat_ask
from experts_registry.errors import PromptError

__all__ = ["echoed", "response_ask"]

MAX_TOOLS = 1024

# Read here, or only about what is not there: stores, server-side tools, truncation. The rest is
# passed on as of a chat.
_READ = {
    "background", "context_management", "conversation", "include", "input", "instructions",
    "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls", "messages",
    "metadata", "n", "parallel_tool_calls", "previous_response_id", "prompt", "reasoning",
    "response_format", "store", "stream_options", "text", "tool_choice", "tools", "truncation",
}  # fmt: skip
_STORED = {
    "previous_response_id": "send the earlier turns as input",
    "conversation": "send the earlier turns as input",
    "prompt": "send its text as instructions and input",
}
_WITH_LOGPROBS = "message.output_text.logprobs"


def response_ask(body: Body) -> Ask:
    """Read a request.

    Raises:
        ApiError: a field is missing, wrong, or asks for what is not there.
    """
    _refuse(body)
    chat = {key: value for key, value in body.items() if key.casefold() not in _READ}
    chat |= {"messages": messages_of(body), **_tools(body), **_text(body)}
    if (limit := integer(body, "max_output_tokens", 1, MAX_TOKENS)) is not None:
        chat["max_completion_tokens"] = limit
    if (effort := _object(body, "reasoning").get("effort")) is not None:
        chat["reasoning_effort"] = effort
    included = listed(body, "include", 100) if body.get("include") else ()
    if _WITH_LOGPROBS in included or integer(body, "top_logprobs", 0, 20):
        chat["logprobs"] = True
    else:
        chat.pop("top_logprobs", None)
    try:
        return chat_ask(chat)
    except PromptError as error:
        raise bad("input", str(error).removeprefix("query: ")) from None


def echoed(body: Body) -> dict[str, Any]:
    """Return the fields that a response repeats, as they are in force; nothing is ever stored."""
    told = (
        "instructions", "max_output_tokens", "max_tool_calls", "prompt_cache_key",
        "safety_identifier", "temperature", "top_logprobs", "top_p", "user",
    )  # fmt: skip
    nothing = {"description": None, "parameters": None, "strict": None}
    words = _object(body, "text")
    return {
        **{name: body.get(name) for name in told},
        "background": False,
        "metadata": dict(_object(body, "metadata")),
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **_object(body, "reasoning")},
        "service_tier": None,
        "store": False,
        "text": {**words, "format": words.get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [{**nothing, **tool} for tool in body.get("tools") or ()],
        "truncation": "disabled",
    }


def _refuse(body: Body) -> None:
    for name, instead in _STORED.items():
        if body.get(name) is not None:
            raise bad(name, f"nothing is stored here; {instead}", UNSUPPORTED)
    if flag(body, "background"):
        raise bad("background", "is not supported; use stream: true", UNSUPPORTED)
    flag(body, "store")  # true is every client's default, so it is taken, and answered with false
    for key, value in _object(body, "metadata").items():
        if not isinstance(value, str):
            raise _no_object(f"metadata.{key:.64}", value, "a string")
    for name in ("prompt_cache_key", "safety_identifier", "user"):
        text(body, name)
    integer(body, "max_tool_calls", 0)


def _tools(body: Body) -> dict[str, Any]:
    choice, is_parallel = body.get("tool_choice"), flag(body, "parallel_tool_calls")
    choice = None if choice is None else _choice(choice)
    if body.get("tools") in (None, []):
        return {}  # servers refuse a choice, or parallel calls, of no tools
    tools = [
        _function(tool, f"tools[{index}]")
        for index, tool in enumerate(listed(body, "tools", MAX_TOOLS))
    ]
    said = {} if choice is None else {"tool_choice": choice}
    if body.get("parallel_tool_calls") is not None:
        said["parallel_tool_calls"] = is_parallel
    return {"tools": tools, **said}


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise _no_object(where, tool)
    if tool.get("type") != "function":
        raise bad(
            where,
            "is a tool of a type that is not here; use those of type function",
            UNSUPPORTED,
        )
    if not isinstance(tool.get("name"), str):
        raise bad(f"{where}.name", "is missing; name it", "missing_required_parameter")
    known = {key: value for key, value in tool.items() if key != "type" and value is not None}
    return {"type": "function", "function": known}


def _choice(choice: Any) -> Any:
    if choice in ("none", "auto", "required"):
        return choice
    name = choice.get("name") if isinstance(choice, Mapping) else None
    if isinstance(name, str) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": name}}
    raise bad(
        "tool_choice",
        "is not one of none, auto, required and {type: function, name}; use one of these",
        "unsupported_value",
    )


def _text(body: Body) -> dict[str, Any]:
    """Return the format, and how wordy the answer should be."""
    words = _object(body, "text")
    chat = {} if words.get("verbosity") is None else {"verbosity": words["verbosity"]}
    form = _object(words, "format", "text.format")
    match form.get("type", "text"):
        case "text":
            return chat
        case "json_object":
            return {**chat, "response_format": {"type": "json_object"}}
        case "json_schema":
            schema = {k: v for k, v in form.items() if k != "type" and v is not None}
            return {**chat, "response_format": {"type": "json_schema", "json_schema": schema}}
    raise bad("text.format", "has a type that is not one of text, json_object and json_schema")


def _object(body: Body, name: str, where: str = "") -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise _no_object(where or name, value)
    return value or {}


def _no_object(where: str, value: Any, what: str = "an object") -> ApiError:
    return bad(where, f"is a {type(value).__name__}; use {what}", "invalid_type")
