"""What an OpenAI-compatible server's refusals mean in our tree of errors."""

import json
import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from experts_registry.backends.endpoint import Endpoint
from experts_registry.errors import (
    ComposerError,
    ContentPolicyError,
    ContextLengthError,
    ExpertBusyError,
    ExpertOverloadedError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)

__all__ = ["broken", "error_in", "refusal", "retry_after"]

logger = logging.getLogger(__name__)

_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum (model |context |prompt |input |sequence )+length"
    r"|context (length|window|size)|prompt is too long|too many (input |prompt )?tokens"
    r"|exceeds the maximum number of tokens",
    re.IGNORECASE,
)

_WORD = re.compile(r"[A-Za-z_][\w.\[\]-]{0,63}")  # as the names of keys and codes are

_FILTERED = re.compile(r"content_filter|content_policy_violation|content management policy")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks us to wait, if it says so in a way that we read."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) / scale
        except ValueError:
            seconds = _until(value)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    # A date without a zone is in UTC, as HTTP dates are.
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def refusal(endpoint: Endpoint, status: int, body: str, wait: float | None = None) -> ComposerError:
    """Build the error for a status that is not success, or for an error inside a stream."""
    said = endpoint.quote(_message(body), 300)
    start = f"{endpoint.where}: HTTP {status}: {said or 'no explanation'}"
    if status in (429, 503):
        when = "later" if wait is None else f"in {wait:.3g} s"
        kind = ExpertBusyError if status == 429 else ExpertOverloadedError
        return kind(f"{start}; come back {when}", wait)
    if status >= 500:
        return ExpertUnavailableError(f"{start}; try again, or look into the server's log")
    if status == 408:
        return ExpertTimeoutError(f"{start}; try again")
    if status in (400, 413, 422) and _TOO_LONG.search(body):
        return ContextLengthError(f"{start}; shorten the prompt or ask another expert")
    if status == 400 and _FILTERED.search(body):
        return ContentPolicyError(f"{start}; change the prompt or ask another expert", status)
    if status < 400:
        return ExpertReplyError(f"{start}; set options.base_url to the address it moved to")
    blamed = _blamed(endpoint, body) if status in (400, 422) else (None, None)
    advice = _advice(endpoint, status)
    error = ExpertRequestError(f"{start}; {advice}", status, *blamed)
    if status in (401, 403):  # without the server's words, which may repeat the prompt
        logger.warning("%s: HTTP %s; %s", endpoint.where, status, advice)
        error.public = f"{start}; the operator has to check its API key"
    return error


def _blamed(endpoint: Endpoint, body: str) -> tuple[str | None, str | None]:
    """Return the key that a server blames and its code for that, where they look like it."""
    try:
        value = json.loads(body)
    except ValueError:
        return None, None
    error = value.get("error") if isinstance(value, Mapping) else None
    told = error if isinstance(error, Mapping) else {}
    param, code = (_word(endpoint, told.get(key)) for key in ("param", "code"))
    return param, code


def _word(endpoint: Endpoint, value: Any) -> str | None:
    is_word = isinstance(value, str) and _WORD.fullmatch(value) and endpoint.quote(value) == value
    return value if is_word else None


def _advice(endpoint: Endpoint, status: int) -> str:
    if status in (401, 403) and endpoint.key_env is None:
        return "name the environment variable with its API key in options.api_key_env"
    if status in (401, 403):
        return f"check the API key in environment variable {endpoint.key_env!r}"
    if status in (404, 405):
        return "check model and options.base_url, which usually ends in /v1"
    return "change the request"


def error_in(endpoint: Endpoint, data: Any) -> ComposerError:
    """Build the error for an ``error`` value that arrived inside a successful response."""
    code = data.get("code") if isinstance(data, Mapping) else None
    known = isinstance(code, int | str) and re.fullmatch(r"[345]\d\d", str(code))
    if known:
        status = int(str(code))
    elif _TOO_LONG.search(str(data)):
        status = 400
    else:
        status = 429 if "rate_limit" in str(data) else 500
    return refusal(endpoint, status, json.dumps({"error": data}))


def _message(body: str) -> str:
    """Find the human part of an error body: ``error.message`` in most dialects."""
    try:
        value = json.loads(body)
    except ValueError:
        return body
    for key in ("error", "message", "detail"):
        if isinstance(value, Mapping) and value.get(key):
            value = value[key]
    return value if isinstance(value, str) else json.dumps(value)


def broken(endpoint: Endpoint, error: httpx.HTTPError, options: Any) -> ComposerError:
    """Build the error for a connection that was not made, or broke."""
    start, what = endpoint.where, endpoint.quote(str(error) or type(error).__name__)
    match error:
        case httpx.PoolTimeout():
            return ExpertOverloadedError(f"{start}: all connections are in use; come back later")
        case httpx.ConnectTimeout():
            return ExpertTimeoutError(
                f"{start}: no connection within options.connect_timeout "
                f"({options.connect_timeout:g} s); check options.base_url and the network"
            )
        case httpx.TimeoutException():
            return ExpertTimeoutError(
                f"{start}: silent for options.timeout ({options.timeout:g} s); raise it or "
                "ask for fewer tokens"
            )
        case httpx.ConnectError():
            unreachable = ExpertUnavailableError(
                f"{start}: cannot connect ({what}); check options.base_url and that the server runs"
            )
            # The reason names the address, which clients need not know.
            unreachable.public = f"{start}: cannot connect; the operator has to check its server"
            return unreachable
        case httpx.DecodingError():
            return ExpertReplyError(f"{start}: sent a body that cannot be decoded ({what})")
    return ExpertUnavailableError(f"{start}: the connection broke ({what}); ask again")
