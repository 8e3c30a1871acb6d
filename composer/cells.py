"""The row of one (query, expert) cell, and the digest that says whether it is still true.

The digest is ``<asked>:<graded>``. ``asked`` covers what decides the answer: messages with the
passages before them, ``max_tokens``, and the expert's backend, model, options and token limit.
``graded`` covers the grader. Prices, resources, tags and categories are in neither.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from composer.queries import Query
from experts_registry.schema import ExpertSpec, Price
from experts_registry.types import Generation
from routers.draft import draft_signals

__all__ = ["Row", "answered", "digest_of", "failed", "has_answer", "is_finished", "refreshed"]

Row = dict[str, Any]


def is_finished(row: Row, query: Query, spec: ExpertSpec) -> bool:
    """Tell whether a row, which may be empty, is graded and still true."""
    return row.get("quality") is not None and row.get("cell") == _cell(query, spec)


def has_answer(row: Row, query: Query, spec: ExpertSpec) -> bool:
    """Tell whether a row holds the answer to this very question, however it was graded."""
    asked = (row.get("cell") or "").partition(":")[0]
    return row.get("response") is not None and asked == _asked(query, spec)


def answered(query: Query, spec: ExpertSpec, generation: Generation, seconds: float) -> Row:
    """Return the row of an answer that is not graded yet."""
    row = failed(query, spec, "not graded", seconds) | {
        "response": _clean(generation.text),
        **_tokens(generation),
        "draft": draft_signals(generation.logprobs) if query.retrieved is None else None,
    }
    return refreshed(row, query, spec)


def failed(query: Query, spec: ExpertSpec, error: str, seconds: float) -> Row:
    """Return the row of a call that gave no answer; nothing is known of its price."""
    return {
        "query_id": query.id,
        "expert": spec.name,
        **_labels(query, spec),
        "quality": None,
        "cost_usd": None,
        "prompt_tokens": None,
        "completion_tokens": None,
        "seconds": seconds,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "response": None,
        "error": _clean(error),
    }


def refreshed(row: Row, query: Query, spec: ExpertSpec) -> Row:
    """Return a row with today's price, category and digest, which cost nothing to know."""
    tokens = (row.get("prompt_tokens"), row.get("completion_tokens"))
    known = None not in tokens or spec.price == Price()
    cost = spec.price.cost(tokens[0] or 0, tokens[1] or 0) if known else None
    return row | _labels(query, spec) | {"cost_usd": cost}


def _tokens(generation: Generation) -> Row:
    """Return the tokens of an answer; a server that does not count them leaves them unknown."""
    usage = generation.usage
    is_counted = usage.total_tokens > 0 or not generation.text
    return {
        "prompt_tokens": usage.prompt_tokens if is_counted else None,
        "completion_tokens": usage.completion_tokens if is_counted else None,
    }


def digest_of(value: Any) -> str:
    """Identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _labels(query: Query, spec: ExpertSpec) -> Row:
    return {
        "query": query.prompt.query,
        "category": query.category or None,
        "grader": query.grader.type,
        "active_params": spec.active_params,
        "cell": _cell(query, spec),
        **_search(query),
    }


def _search(query: Query) -> Row:
    """Return what was found for the query, where it was searched for."""
    if (found := query.retrieved) is None:
        return {"passages": None, "similarity": None, "margin": None}
    return {
        "passages": [passage.id for passage in found.passages],
        "similarity": list(map(float, found.similarity)),
        "margin": found.margin,
    }


def _cell(query: Query, spec: ExpertSpec) -> str:
    return f"{_asked(query, spec)}:{digest_of(query.grader.model_dump(mode='json'))[:16]}"


def _asked(query: Query, spec: ExpertSpec) -> str:
    asked = {
        "messages": [[m.role, m.content, dict(m.extra)] for m in query.asked.messages],
        "max_tokens": query.prompt.sampling.max_tokens or spec.limits.max_tokens,
        "backend": spec.backend,
        # A checked digest of the weights says more than the place where they lie.
        "model": spec.sha256 or spec.model,
        "options": spec.options,
    }
    return digest_of(asked)[:32]


def _clean(text: str) -> str:
    """Replace halves of surrogate pairs, which some servers send and no file can hold."""
    return text.encode(errors="replace").decode()
