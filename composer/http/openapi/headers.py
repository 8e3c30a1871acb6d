"""Headers of answers, by the names that operations call them."""

from typing import Any

__all__ = ["ANSWERED", "HEADERS", "REQUEST_ID"]

REQUEST_ID = "x-request-id"
# On every answer that an expert gave; router and score only where one decided, cost not on streams.
ANSWERED = (
    "x-composer-model",
    "x-composer-expert",
    "x-composer-generation",
    "x-composer-router",
    "x-composer-score",
    "x-composer-attempts",
    "x-composer-fallbacks",
    "x-composer-overhead-ms",
    "x-composer-cost-usd",
)


def _header(meaning: str, kind: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": meaning, "required": required, "schema": {"type": kind}}


HEADERS: dict[str, dict[str, Any]] = {
    REQUEST_ID: _header("Names the request, also in the log.", "string", required=True),
    "x-composer-model": _header("What was asked for.", "string", required=True),
    "x-composer-expert": _header("Who answered.", "string", required=True),
    "x-composer-generation": _header("Edition of the expert file.", "integer", required=True),
    "x-composer-router": _header("The router that decided, if one did.", "string"),
    "x-composer-score": _header("Its score of this expert.", "number"),
    "x-composer-attempts": _header("Calls to experts.", "integer"),
    "x-composer-fallbacks": _header("Those of them that failed.", "integer"),
    "x-composer-overhead-ms": _header("Time not spent waiting for experts.", "number"),
    "x-composer-cost-usd": _header("Of all calls; not on streams.", "number"),
    "retry-after": _header("Seconds after which it is worth trying again.", "integer"),
    "retry-after-ms": _header("The same in milliseconds.", "integer"),
    "x-should-retry": _header("`false` where trying again cannot help.", "string"),
    "www-authenticate": _header("The kind of credentials that is wanted.", "string"),
}
