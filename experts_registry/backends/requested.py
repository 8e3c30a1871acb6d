"""Request keys that an expert of this process cannot just pass on: it keeps to each, or refuses."""

from collections.abc import Collection, Mapping
from typing import Any

from experts_registry.backends.options import refuse
from experts_registry.errors import OptionError, PromptError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Prompt

__all__ = ["biases", "require_answerable"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")

# They change who is billed, what is kept or how fast it goes, or are hints; never what was asked.
_INERT = frozenset({
    "audio", "input_type", "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier",
    "service_tier", "store", "top_logprobs", "user", "verbosity",
})  # fmt: skip
# What each may say without asking for anything.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": ([], ["text"]),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
}
# With these the other key calls nothing.
_SILENCED: Mapping[str, tuple[str, str]] = {
    "functions": ("function_call", "none"),
    "tools": ("tool_choice", "none"),
    "web_search_options": ("tool_choice", "none"),
}


def require_answerable(
    spec: ExpertSpec,
    prompt: Prompt,
    *,
    offers: Collection[str] = ("text",),
    honoured: Collection[str] = (),
) -> None:
    """Refuse a prompt that asks for more than a text, unless the backend honours it.

    Args:
        spec: whose backend this is.
        prompt: what it is asked.
        offers: what it can do, for the error.
        honoured: keys of ``prompt.extra`` that the backend reads itself.

    Raises:
        OffersError: a key or a part of a message would go unheeded.
        OptionError: a bias is none.
        PromptError: nobody speaks in a role of that name.
    """
    for key, value in prompt.extra.items():
        if key not in honoured and not _is_harmless(key, value, prompt.extra):
            raise refuse(spec, key, offers)
    biases(prompt.extra)
    for message in prompt.messages:
        if message.role not in _ROLES:
            raise PromptError(
                f"messages: {message.role!r:.40} is no role; use one of {', '.join(_ROLES)}"
            )
        if message.media:
            raise refuse(spec, message.media[0], offers, param="messages")


def biases(extra: Mapping[str, Any]) -> dict[int, float]:
    """Return the bias of each token that a request gives one to; one of 0 is none.

    Raises:
        OptionError: one is out of its range, or for no token id.
    """
    given = extra.get("logit_bias")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError("logit_bias: is no object; use {token id: bias}")
    for token, value in given.items():
        if not isinstance(value, int | float) or not -100 <= value <= 100:
            raise OptionError(f"logit_bias.{token}: {value!r:.40} is not in [-100, 100]")
        # openai-python's own tests give a bias of 0 to a token "foo".
        if value and not str(token).isdecimal():
            raise OptionError(f"logit_bias: {token!r:.40} is no token id; use a whole number")
    return {int(token): float(value) for token, value in given.items() if value}


def _is_harmless(key: str, value: Any, extra: Mapping[str, Any]) -> bool:
    if value is None or key in _INERT or value in _PLAIN.get(key, ()):
        return True
    if key in _SILENCED:
        choice, none = _SILENCED[key]
        return value == [] or extra.get(choice) == none
    if key in ("tool_choice", "function_call"):  # without tools there is nothing to choose
        return value in ("none", "auto")
    return key == "moderation" and "block" not in _modes(value)


def _modes(moderation: Any) -> list[Any]:
    """Return whether to score or to block; nothing is scored here, and nothing blocked."""
    policy = moderation.get("policy") if isinstance(moderation, Mapping) else None
    sides = policy.values() if isinstance(policy, Mapping) else ()
    return [side.get("mode") for side in sides if isinstance(side, Mapping)]
