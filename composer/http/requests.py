"""What a client asks for: OpenAI's request fields as a `Prompt`, in their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from composer.http.fields import Body, bad, decimal, flag, integer, listed, require, stop_texts
from composer.http.fields import text as text_field
from experts_registry.types import Prompt, Sampling

__all__ = ["Ask", "chat_ask", "text_ask"]

MAX_MESSAGES = 2048
MAX_ANSWERS = 128
MAX_TOKENS = 2**31 - 1
TEXT_TOKENS = 16  # OpenAI's default of /v1/completions
_SMALLEST_TOP_P = 1e-6  # OpenAI takes 0, which means the same: the likeliest token

# What would let a client choose where our keys go; client libraries and gateways read them.
_UPSTREAM = {
    "api_base", "api_key", "api_type", "api_version", "auth", "authorization",
    "aws_access_key_id", "aws_bedrock_runtime_endpoint", "aws_role_name", "aws_secret_access_key",
    "aws_session_token", "aws_sts_endpoint", "aws_web_identity_token", "azure_ad_token",
    "azure_endpoint", "base_url", "client", "custom_llm_provider", "default_headers",
    "deployment_id", "endpoint", "extra_body", "extra_headers", "extra_query", "fallbacks",
    "headers", "http_client", "litellm_credential_name", "litellm_params", "mock_response",
    "model_list", "organization", "project", "proxies", "proxy", "region_name", "user_config",
    "vertex_credentials",
}  # fmt: skip
# Read here, so not passed on as they are.
_OURS = {
    "model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "temperature",
    "top_p", "stop", "seed", "logprobs", "top_logprobs", "stream_options", "retrieval",
}  # fmt: skip
_OURS_IN_TEXT = {"prompt", "echo", "best_of"}
_NOT_PASSED_ON = frozenset(_UPSTREAM | _OURS)
_NOT_PASSED_ON_OF_TEXT = _NOT_PASSED_ON | _OURS_IN_TEXT


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request for answers.

    Args:
        model: a composition, or one expert by name.
        prompt: what to answer, and how.
        is_streamed: whether they are wanted piece by piece.
        has_usage: whether a stream ends with its usage.
    """

    model: str
    prompt: Prompt
    is_streamed: bool = False
    has_usage: bool = False


def chat_ask(body: Body) -> Ask:
    """Read a chat request.

    Raises:
        ApiError: a field is missing, of a wrong type or out of its range.
        PromptError: there is nothing to answer.
    """
    messages = listed(body, "messages", MAX_MESSAGES)
    logprobs = flag(body, "logprobs")
    top = integer(body, "top_logprobs", 0, 20)
    if top is not None and not logprobs:
        raise bad("top_logprobs", "needs logprobs: true; say it, or leave top_logprobs out")
    sampling = _sampling(body, logprobs=logprobs, top_logprobs=top or 0)
    return _ask(body, Prompt.of(messages), sampling, _NOT_PASSED_ON)


def text_ask(body: Body, text: str) -> Ask:
    """Read a request to complete one text; errors as of `chat_ask`."""
    top = integer(body, "logprobs", 0, 5)
    sampling = _sampling(body, logprobs=top is not None, top_logprobs=top or 0)
    if sampling.max_tokens is None:
        sampling = replace(sampling, max_tokens=TEXT_TOKENS)
    if not text_field(body, "suffix"):
        body = {key: value for key, value in body.items() if key != "suffix"}
    return _ask(body, Prompt.of(text), sampling, _NOT_PASSED_ON_OF_TEXT)


def _ask(body: Body, prompt: Prompt, sampling: Sampling, left_out: frozenset[str]) -> Ask:
    require(body, "model")
    text_field(body, "user")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, Mapping):
        raise bad("stream_options", "is no object; use {include_usage: true}", "invalid_type")
    return Ask(
        model=text_field(body, "model") or "",
        prompt=Prompt(prompt.messages, sampling, _extra(body, left_out)),
        is_streamed=flag(body, "stream"),
        has_usage=_has_usage(options) if options else False,
    )


def _has_usage(options: Body) -> bool:
    name = "include_usage"
    return flag({f"stream_options.{name}": options.get(name)}, f"stream_options.{name}")


def _sampling(body: Body, *, logprobs: bool, top_logprobs: int) -> Sampling:
    for name in ("frequency_penalty", "presence_penalty"):
        decimal(body, name, -2, 2)
    limits = [
        integer(body, name, 0, MAX_TOKENS) for name in ("max_completion_tokens", "max_tokens")
    ]
    top_p = decimal(body, "top_p", 0, 1)
    return Sampling(
        max_tokens=limits[0] if limits[0] is not None else limits[1],
        temperature=decimal(body, "temperature", 0, 2),
        top_p=None if top_p is None else max(top_p, _SMALLEST_TOP_P),
        stop=stop_texts(body),
        seed=integer(body, "seed", -(2**63), 2**63 - 1),
        n=integer(body, "n", 1, MAX_ANSWERS) or 1,
        logprobs=logprobs,
        top_logprobs=top_logprobs,
    )


def _extra(body: Body, left_out: frozenset[str]) -> dict[str, Any]:
    """Return what goes to remote experts untouched."""
    return {key: value for key, value in body.items() if key.casefold() not in left_out}
