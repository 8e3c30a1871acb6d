"""Carry httpx requests with aiohttp, whose parser and writer are compiled: half of the CPU.

The package httpx-aiohttp 0.2 does the same, but takes a refused or a broken connection for a
connect timeout, and keeps the cookies that servers set.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ssl import SSLContext

import aiohttp
import httpx

__all__ = ["AiohttpTransport"]

# The first that fits counts: a subclass stands before its base.
_KINDS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (TimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Connections of one event loop, to one server. Proxies and HTTP/2 are left to httpx's own.

    Args:
        connections: the most at once; who comes then waits as long as the request allows.
        idle_seconds: how long an unused connection is kept.
        ssl: for https; None for http alone.
    """

    def __init__(self, *, connections: int, idle_seconds: float, ssl: SSLContext | None) -> None:
        self._turns = asyncio.Semaphore(connections)
        self._connector = aiohttp.TCPConnector(
            limit=0,  # waiting is counted by the semaphore, apart from connecting
            keepalive_timeout=idle_seconds,
            ssl=ssl or False,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's must not reach another's request
            auto_decompress=False,  # httpx decodes
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return once the head of the answer is there."""
        timeout = request.extensions.get("timeout", {})
        await self._turn(timeout.get("pool"))
        try:
            with _told_as_httpx():
                answer = await self._session.request(
                    request.method,
                    str(request.url),
                    headers=request.headers.multi_items(),
                    data=request.content or None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None, connect=timeout.get("connect"), sock_read=timeout.get("read")
                    ),
                )
        except BaseException:
            self._turns.release()
            raise
        return httpx.Response(
            answer.status, headers=answer.raw_headers, stream=_Body(answer, self._turns)
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _turn(self, seconds: float | None) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use") from None


class _Body(httpx.AsyncByteStream):
    """The body of an answer; an end before its end closes the connection."""

    def __init__(self, answer: aiohttp.ClientResponse, turns: asyncio.Semaphore) -> None:
        self._answer, self._turns = answer, turns
        self._is_open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx():
            async for piece in self._answer.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            self._answer.release()
            self._turns.release()


@contextmanager
def _told_as_httpx() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        kind = next(to for of, to in _KINDS if isinstance(error, of))
        raise kind(str(error)) from error
