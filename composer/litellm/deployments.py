"""One entry of LiteLLM's ``model_list`` as an expert."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from composer.litellm.providers import PROVIDERS, provider_of
from composer.litellm.sections import Section

__all__ = ["Defaults", "Deployment", "read_deployment"]

_ENVIRON = "os.environ/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What people write where a server wants some key and reads none.
_NO_KEY = re.compile(
    r"|none|null|empty|dummy|anything|any|x+|fake[-_]?(api[-_]?)?key|not[-_]needed"
    r"|(sk-)?no-key-required|my-ignored-key|<.*>",
    re.IGNORECASE,
)
_CHATS = ("", "chat", "completion")
_WHYS = {
    "rpm": "experts have no rate limit; keys have: 'expert-composer keys create --rpm'",
    "tpm": "experts have no rate limit; keys have: 'expert-composer keys create --tpm'",
    "weight": "traffic is spread by what a trained router expects, or 'select: {balance: ...}'",
    "order": "the order of 'fallbacks' in a composition says who is asked next",
    "api_version": "the address converted to has no versions",
    "temperature": "defaults of a request belong to its client",
    "top_p": "defaults of a request belong to its client",
    "extra_headers": "experts send no further headers",
    "organization": "experts send no further headers",
}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for every deployment that does not say otherwise."""

    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """An expert that wants a name."""

    group: str
    spec: Mapping[str, Any]


def read_deployment(entry: Section, defaults: Defaults) -> Deployment | None:
    """Convert an entry; None where it cannot be, which is told."""
    group = entry.take_text("model_name")
    params, info = entry.take_section("litellm_params"), entry.take_section("model_info")
    mode = info.take_text("mode")
    model, named = params.take_text("model"), params.take_text("custom_llm_provider")
    try:
        base = _resolved(params.take_text("api_base", "base_url"))
        _require_chat(group, model, mode)
        provider, served = provider_of(model, named, base)
        url = PROVIDERS[provider].address(base)
        if not url.startswith(("http://", "https://")):
            raise ValueError("api_base: is missing; write the server's address")
        if "@" in url.split("/")[2]:
            raise ValueError("api_base: holds a user or password; write it without")
    except ValueError as error:
        entry.reading.leave(entry.path, f"{group or 'an entry without model_name'}: {error}")
        return None
    options: dict[str, Any] = {"base_url": url, **_key(params, provider, group, is_own=bool(base))}
    spec = {
        "kind": "llm",
        "backend": "openai",
        "model": served,
        "price": _price(params, info),
        "context_window": _whole(info.take_number("max_input_tokens")),
        "limits": {**defaults.limits, **_limits(params)},
        "resources": {"cpus": 0},
        "options": options,
    }
    for section in (entry, params, info):
        section.leave_rest(_WHYS)
    return Deployment(group=group, spec={key: value for key, value in spec.items() if value})


def _require_chat(group: str, model: str, mode: str) -> None:
    if not group or not model:
        raise ValueError("has no model_name or no litellm_params.model")
    if "*" in group or "*" in model:
        raise ValueError("wildcards are not converted; name each model")
    if mode not in _CHATS or "embed" in model.lower():
        raise ValueError(f"{mode or 'embedding'}: only models that answer chats are converted")


def _resolved(text: str) -> str:
    """Return an address; LiteLLM lets it name a variable."""
    if not text.startswith(_ENVIRON):
        return text
    variable = text.removeprefix(_ENVIRON)
    if not os.environ.get(variable):
        raise ValueError(
            f"api_base: is in the environment variable {variable}, which is not set here; set it, "
            "or write the address"
        )
    return os.environ[variable]


def _key(params: Section, provider: str, group: str, *, is_own: bool) -> dict[str, str]:
    """Return the variable with the key. A literal key is not copied: this file is for all eyes.

    LiteLLM sends OPENAI_API_KEY to any server of ``openai/``; here only where it is named.
    """
    usual = "" if is_own and provider != "azure" else PROVIDERS[provider].key_env
    value = params.values.get("api_key")
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith(_ENVIRON) and _VARIABLE.fullmatch(name := text.removeprefix(_ENVIRON)):
        params.take("api_key")
        return {"api_key_env": name}
    if value is None:
        if not usual and (theirs := PROVIDERS[provider].key_env):
            why = f"names no key, so this server is not sent {theirs}, as LiteLLM would"
            params.reading.leave(params.path, why)
        return {"api_key_env": usual} if usual else {}
    if not usual and _NO_KEY.fullmatch(text):
        params.leave("api_key", "is taken for a stand-in: the server is asked without a key")
        return {}
    name = usual or re.sub(r"\W+", "_", group).upper().strip("_") + "_API_KEY"
    name = name if _VARIABLE.fullmatch(name) else f"KEY_{name}"
    params.leave("api_key", f"a key is not copied; put it into the environment variable {name}")
    return {"api_key_env": name}


def _price(params: Section, info: Section) -> dict[str, float]:
    names = {"prompt": "input_cost_per_token", "completion": "output_cost_per_token"}
    price: dict[str, float] = {}
    for ours, theirs in names.items():
        costs = [section.take_number(theirs) for section in (params, info)]
        known = [cost for cost in costs if cost is not None]
        price |= {ours: round(known[0] * 1e6, 6)} if known else {}
    return price


def _limits(params: Section) -> dict[str, Any]:
    found = {
        "seconds": params.take_number("timeout", "request_timeout"),
        "first_token_seconds": params.take_number("stream_timeout"),
        "concurrency": _whole(params.take_number("max_parallel_requests")),
        "max_tokens": _whole(params.take_number("max_tokens", "max_completion_tokens")),
        "retries": retries(params),
    }
    return {key: value for key, value in found.items() if value is not None}


def retries(section: Section) -> int | None:
    """Return how often to try again, in the range that the expert file takes."""
    for key in ("num_retries", "max_retries"):
        value = section.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            section.take(key)
            return min(value, 10)
    return None


def _whole(number: float | None) -> int | None:
    return None if number is None else max(1, int(number))
