"""What posts requests to a server, and the one that does it with httpx."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx

__all__ = ["Client", "HttpxClient", "Reply"]


class Reply(Protocol):
    """An answer whose head is there; `httpx.Response` is one."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def is_success(self) -> bool:
        """Whether it is 2xx."""
        ...

    @property
    def headers(self) -> Mapping[str, Any]:
        """By name, whatever its case."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Read the body as it comes."""
        ...

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        ...


class Client(Protocol):
    """Posts to one address."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a body, and headers of its own; return once the head of the answer is there.

        Raises:
            httpx.HTTPError: there is none.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class HttpxClient:
    """Posts with httpx.

    Args:
        url: where everything is posted.
        client: its headers and limits are those of every request.
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url, self._client = url, client

    async def post(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Send a body; return once the head of the answer is there."""
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
