"""Headers of answers, by the names that operations call them."""

from collections.abc import Iterable
from typing import Any

__all__ = ["ANSWERED", "EVERYWHERE", "HEADERS", "LIMITED", "PAGE", "STREAMED", "of"]

EVERYWHERE = ("x-request-id", "x-client-request-id", "x-composer-replica")
# Where a key has rates.
LIMITED = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
)
# On every answer that an expert gave; router and score only where one decided, cost not on streams.
ANSWERED = (
    "x-composer-model",
    "x-composer-expert",
    "x-composer-generation",
    "x-composer-router",
    "x-composer-score",
    "x-composer-retrieval",
    "x-composer-attempts",
    "x-composer-fallbacks",
    "x-composer-overhead-ms",
    "x-composer-cost-usd",
)
# On the answers that are streams.
STREAMED = ("cache-control", "x-accel-buffering")
PAGE = (
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "cache-control",
)


def _header(meaning: str, kind: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": meaning, "required": required, "schema": {"type": kind}}


HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": _header("Names the request, also in the log.", "string", required=True),
    "x-client-request-id": _header(
        "The same of the request: a name that the client chose.", "string"
    ),
    "x-composer-replica": _header("Which replica answered, of several.", "string"),
    LIMITED[0]: _header("Requests a minute that the key may make.", "integer"),
    LIMITED[1]: _header("Those of them that are left.", "integer"),
    LIMITED[2]: _header("Tokens a minute that the key may use.", "integer"),
    LIMITED[3]: _header("Those that are left; the most that requests may use counts.", "integer"),
    "x-composer-model": _header("What was asked for.", "string", required=True),
    "x-composer-expert": _header("Who answered.", "string", required=True),
    "x-composer-generation": _header("Edition of the expert file.", "integer", required=True),
    "x-composer-router": _header("The router that decided, if one did.", "string"),
    "x-composer-score": _header("Its score of this expert.", "number"),
    "x-composer-retrieval": _header("The store that passages came from, or `none`.", "string"),
    "x-composer-attempts": _header("Calls to experts.", "integer"),
    "x-composer-fallbacks": _header("Those of them that failed.", "integer"),
    "x-composer-overhead-ms": _header("Time not spent waiting for experts.", "number"),
    "x-composer-cost-usd": _header("Of all calls; not on streams.", "number"),
    "retry-after": _header("Seconds after which it is worth trying again.", "integer"),
    "retry-after-ms": _header("The same in milliseconds.", "integer"),
    "x-should-retry": _header("`false` where trying again cannot help.", "string"),
    "www-authenticate": _header("The kind of credentials that is wanted.", "string"),
    "x-accel-buffering": _header("`no` on streams: proxies pass each event on.", "string"),
    "content-security-policy": _header("Nothing from elsewhere, and nothing inline.", "string"),
    "x-content-type-options": _header("`nosniff`", "string"),
    "x-frame-options": _header("`DENY`", "string"),
    "referrer-policy": _header("`same-origin`", "string"),
    "cross-origin-opener-policy": _header("`same-origin`", "string"),
    "cross-origin-resource-policy": _header("`same-origin`", "string"),
    "permissions-policy": _header("What the page may use: none of what is named.", "string"),
    "cache-control": _header("`no-cache`", "string"),
}


def of(always: Iterable[str], sometimes: Iterable[str] = ()) -> dict[str, Any]:
    """Describe the headers of an answer.

    Args:
        always: names of those that come as `HEADERS` has them.
        sometimes: names of those that may be missing here, whatever they are elsewhere.
    """
    optional = {name: {**HEADERS[name], "required": False} for name in sometimes}
    return {name: {"$ref": f"#/components/headers/{name}"} for name in always} | optional
