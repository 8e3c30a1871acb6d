"""The least that a proxy in this language and framework does: Starlette in, aiohttp out.

UPSTREAM=http://127.0.0.1:PORT python -m uvicorn --app-dir benchmarks gateways.bare:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

__all__ = ["app"]

_PATH = "/v1/chat/completions"


async def _forward(request: Request) -> Response:
    body = await request.body()
    session: aiohttp.ClientSession = request.state.session
    headers = {"content-type": "application/json"}
    answer = await session.post(os.environ["UPSTREAM"] + _PATH, data=body, headers=headers)
    if answer.content_type == "text/event-stream":
        return StreamingResponse(_pieces(answer), media_type="text/event-stream")
    async with answer:
        return Response(await answer.read(), answer.status, media_type=answer.content_type)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


@asynccontextmanager
async def _session(_app: Starlette) -> AsyncIterator[dict[str, aiohttp.ClientSession]]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield {"session": session}


app = Starlette(routes=[Route(_PATH, _forward, methods=["POST"])], lifespan=_session)
