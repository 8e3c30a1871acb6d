"""POST /v1/retrieve: passages of a store for a query, and nobody's answer to it."""

import logging
from typing import Any

from starlette.types import ASGIApp

from composer.explanation import decision_json
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.errors import ApiError, overloaded
from composer.http.fields import bad, integer, require, text
from composer.http.passages import known_store, passage_json, readable_stores
from composer.http.retrieved import headers_of, tokens_in
from composer.stores.retrieved import Retrieved
from experts_registry.errors import ArtefactError, RegistryError, UnknownNameError

__all__ = ["MAX_PASSAGES", "retrieve"]

logger = logging.getLogger(__name__)

MAX_PASSAGES = 100
USUAL_PASSAGES = 10


async def retrieve(asked: Asked) -> ASGIApp:
    """Find passages."""
    body = asked.body
    query = _query(asked)
    store = _store(asked)
    k = integer(body, "k", 1, MAX_PASSAGES) or USUAL_PASSAGES
    retriever = text(body, "retriever")
    asked.visit.count()
    try:
        found = await asked.composer.aretrieve(query, k, store=store, retriever=retriever)
    except UnknownNameError as error:  # the store is known, so it is the retriever
        raise ApiError(404, str(error), code="model_not_found", param="retriever") from error
    except (ArtefactError, RegistryError) as error:  # their texts name files of the server
        logger.error("%s: %s", asked.visit.request_id, error)
        raise overloaded(f"store {store!r} cannot be searched; the log says why") from error
    headers = headers_of(asked.composer, ",".join(found.decision.experts))
    return JsonResponse(_answer(found, query), headers=headers)


def _answer(found: Retrieved, query: str) -> dict[str, Any]:
    tokens = tokens_in(query)
    return {
        "object": "list",
        "store": found.store,
        "data": [passage_json(p, i) for i, p in enumerate(found.passages, start=1)],
        "decision": decision_json(found.decision),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _query(asked: Asked) -> str:
    require(asked.body, "query")
    query = text(asked.body, "query") or ""
    if not query.strip():
        raise bad("query", "is empty; say what to look for")
    return query


def _store(asked: Asked) -> str:
    """Return the store that was named, or the only one that the key may read."""
    key, registry = asked.visit.key, asked.composer.registry
    if (name := text(asked.body, "store")) is not None:
        return known_store("store", name, key, registry)
    readable = readable_stores(key, registry)
    if not readable:
        raise bad("store", "there is none that you may read", "store_not_found")
    if len(readable) != 1:
        what = f"is missing; name one of {', '.join(readable)}"
        raise bad("store", what, "missing_required_parameter")
    return readable[0]
