"""Post with aiohttp, whose parser and writer are compiled: a third of the CPU that httpx takes.

Its errors are told as httpx's. The package httpx-aiohttp 0.2 would not do: it takes a refused or a
broken connection for a connect timeout, keeps the cookies of servers, and saves less.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from ssl import SSLContext
from typing import Any

import aiohttp
import httpx
import yarl

__all__ = ["AiohttpClient"]

# The first that fits counts: a subclass stands before its base.
_KINDS: tuple[tuple[type[Exception], type[httpx.HTTPError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (TimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)


class AiohttpClient:
    """Connections of one event loop to one address. Proxies are left to httpx.

    Args:
        url: where everything is posted.
        headers: of every request.
        timeout: longest silence of the server, and longest wait for a free connection.
        connect_timeout: longest wait for a connection to be made.
        connections: the most at once.
        idle_seconds: how long an unused connection is kept.
        ssl: for https; None for http alone.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        connect_timeout: float,
        connections: int,
        idle_seconds: float,
        ssl: SSLContext | None,
    ) -> None:
        self._url, self._timeout = yarl.URL(url), timeout
        self._turns = asyncio.Semaphore(connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # waiting is counted by the semaphore, apart from connecting
                keepalive_timeout=idle_seconds,
                ssl=ssl or False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's must not reach another's request
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_read=timeout),
        )

    async def post(self, body: bytes, headers: Mapping[str, str]) -> "_Reply":
        """Send a body; return once the head of the answer is there.

        Raises:
            httpx.HTTPError: there is none.
        """
        await self._turn()
        try:
            answer = await self._session.post(
                self._url, data=body, headers=headers or None, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            self._turns.release()
            raise _as_httpx(error) from error
        except BaseException:
            self._turns.release()
            raise
        return _Reply(answer, self._turns)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use") from None


class _Reply:
    """An answer, as far as `httpx.Response` is needed here; closing it early hangs up."""

    def __init__(self, answer: aiohttp.ClientResponse, turns: asyncio.Semaphore) -> None:
        self._answer, self._turns, self._is_open = answer, turns, True
        self.status_code, self.is_success = answer.status, 200 <= answer.status < 300
        self.headers: Mapping[str, Any] = answer.headers

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Read the body, decompressed, as it comes."""
        return self  # no generator, which the loop would keep a list of

    def __aiter__(self) -> "_Reply":
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._answer.content.readany()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _as_httpx(error) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Let the connection be used again, if all was read."""
        if self._is_open:
            self._is_open = False
            self._answer.release()
            self._turns.release()


def _as_httpx(error: Exception) -> httpx.HTTPError:
    """Return an error of aiohttp's, or a `TimeoutError`, as httpx tells it."""
    if isinstance(error.__cause__, aiohttp.http_exceptions.ContentEncodingError):
        return httpx.DecodingError(str(error))
    kind = next(to for of, to in _KINDS if isinstance(error, of))
    return kind(str(error))
