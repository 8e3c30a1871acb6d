"""POST /v1/rerank and /v2/rerank: order documents by how well they answer a query.

There is no standard: requests are Cohere's and Jina's, answers have what either client reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from starlette.types import ASGIApp

from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.fields import UNSUPPORTED, Body, bad, flag, integer, listed, require, text
from composer.http.retrieved import CHARACTERS_PER_TOKEN, headers_of, tokens_in

__all__ = ["rerank"]

MAX_DOCUMENTS = 1000


async def rerank(asked: Asked) -> ASGIApp:
    """Order documents."""
    body = asked.body
    require(body, "model")
    model, query, documents = text(body, "model") or "", _query(body), _documents(body)
    most = integer(body, "top_n", 1) or len(documents)
    with_documents = flag(body, "return_documents")
    longest = integer(body, "max_tokens_per_doc", 1)
    texts = [
        _text(document)[: longest and longest * CHARACTERS_PER_TOKEN] for document in documents
    ]
    asked.visit.admit(model)
    scores = await asked.composer.arelevance(query, texts, model=model)
    results: list[dict[str, Any]] = []
    for index in np.argsort(-scores, kind="stable")[:most].tolist():
        result = {"index": index, "relevance_score": float(scores[index])}
        if with_documents:
            result["document"] = _shown(documents[index])
        results.append(result)
    value = _answer(model, results, [query, *texts])
    return JsonResponse(value, headers=headers_of(asked.composer, model))


def _answer(
    model: str, results: Sequence[Mapping[str, Any]], read: Sequence[str]
) -> dict[str, Any]:
    tokens = sum(map(tokens_in, read))
    return {
        "id": f"rerank-{uuid4().hex}",
        "object": "list",
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
        },
    }


def _query(body: Body) -> str:
    require(body, "query")
    query = text(body, "query") or ""
    if not query.strip():
        raise bad("query", "is empty; say what the documents should be about")
    return query


def _documents(body: Body) -> list[str | Mapping[str, Any]]:
    if body.get("rank_fields"):
        raise bad("rank_fields", "is not supported; send documents as texts", UNSUPPORTED)
    documents = listed(body, "documents", MAX_DOCUMENTS)
    for index, document in enumerate(documents):
        where = f"documents[{index}]"
        if not isinstance(_text(document), str):
            raise bad(where, "is neither a string nor an object with a text", "invalid_type")
        if not _text(document):
            raise bad(where, "is empty; leave it out")
    return documents


def _text(document: Any) -> Any:
    return document.get("text") if isinstance(document, Mapping) else document


def _shown(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"text": document} if isinstance(document, str) else document
