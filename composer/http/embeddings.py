"""POST /v1/embeddings, from the registry's retrievers."""

import base64
from typing import Any

import numpy as np
from starlette.types import ASGIApp

from composer.embedding import Texts
from composer.http.asked import Asked
from composer.http.bodies import JsonResponse
from composer.http.fields import Body, bad, choice, integer, listed, require, text, token_lists
from composer.http.retrieved import headers_of, tokens_in
from experts_registry.types import FloatArray, Role

__all__ = ["embeddings"]

MAX_TEXTS = 2048


async def embeddings(asked: Asked) -> ASGIApp:
    """Embed texts."""
    body = asked.body
    require(body, "model")
    model, texts, role = text(body, "model") or "", _texts(body), _role(body)
    encoding = choice(body, "encoding_format", "float", "base64")
    dimensions = integer(body, "dimensions", 1)
    asked.visit.admit(model)
    x = await asked.composer.aembed(texts, model=model, role=role, dimensions=dimensions)  # (n, d)
    tokens = sum(map(tokens_in, texts))
    value = {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _written(row, encoding)}
            for index, row in enumerate(x)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return JsonResponse(value, headers=headers_of(asked.composer, model))


def _written(row: FloatArray, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return row.astype(np.float64).tolist()


def _texts(body: Body) -> Texts:
    value = require(body, "input")
    if isinstance(value, list) and (tokens := token_lists("input", value)):
        return listed({"input": tokens}, "input", MAX_TEXTS)
    texts = [value] if isinstance(value, str) else listed(body, "input", MAX_TEXTS)
    for one in texts:
        if not isinstance(one, str):
            raise bad("input", "holds what is neither text nor tokens", "invalid_type")
        if not one:
            raise bad("input", "holds an empty text; leave it out")
    return texts


def _role(body: Body) -> Role:
    """Read what the texts are for; some retrievers embed a query differently from a passage."""
    return "query" if choice(body, "input_type", "passage", "query") == "query" else "passage"
