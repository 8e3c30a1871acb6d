"""Ask any server that speaks the OpenAI chat API, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Literal
from urllib.request import getproxies

import httpx
from pydantic import BaseModel, Field

from experts_registry.backends.addresses import ResolvedHost
from experts_registry.backends.aiohttp_client import AiohttpClient
from experts_registry.backends.endpoint import PUBLIC_URL, Endpoint
from experts_registry.backends.openai_errors import broken, refusal, retry_after
from experts_registry.backends.openai_wire import Assembly, parse_reply, request_body
from experts_registry.backends.options import check_offers, closed, parse_options, refuse
from experts_registry.backends.posting import Client, HttpxClient, Reply
from experts_registry.backends.several import joined, remaining
from experts_registry.backends.sse import Event, read_events
from experts_registry.errors import ExpertReplyError, RegistryError
from experts_registry.schema import ExpertSpec
from experts_registry.tracing import trace_headers
from experts_registry.types import Chunk, Generation, Prompt

__all__ = ["OpenAILLM", "Options"]

MAX_REPLY = 16 * 2**20
MAX_REFUSAL = 64 * 2**10
# Shorter than the 5 s after which common servers hang up on an idle connection.
_IDLE_SECONDS = 3.0


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    base_url: str = Field(PUBLIC_URL, description="The API's address; usually ends in /v1.")
    api_key_env: str | None = Field(
        None,
        description="Environment variable with the API key; by default OPENAI_API_KEY for OpenAI's "
        "own server and no key for any other.",
    )
    timeout: float = Field(60.0, gt=0, description="Longest silence of the server, in seconds.")
    connect_timeout: float = Field(10.0, gt=0, description="Longest wait for a connection.")
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="How the server calls the limit on generated tokens."
    )
    allow_link_local: bool = Field(
        False,
        description="Ask also a link-local address (169.254.0.0/16, fe80::/10), where clouds keep "
        "credentials.",
    )


class OpenAILLM:
    """Any server that speaks the OpenAI chat API."""

    offers: tuple[str, ...] = ("text", "logprobs")
    tier = "remote"

    def __init__(
        self, spec: ExpertSpec, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        if not isinstance(spec.model, str):
            raise RegistryError(f"expert {spec.name!r}: model: is a list; name one served model")
        self.spec = spec
        self.options = parse_options(Options, spec)
        self.endpoint = Endpoint.of(
            spec,
            self.options.base_url,
            self.options.api_key_env,
            allow_link_local=self.options.allow_link_local,
        )
        self._host = ResolvedHost(self.endpoint.where, self.endpoint.host)
        self._offers = check_offers(spec, self.offers)
        self._transport = transport
        self._clients = _ClientPerLoop(self._new_client)
        self._closed = False

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt; where a server gives fewer answers than asked for, ask it again."""
        found = await self._generate(prompt)
        while (begun := len(found.choices)) < prompt.sampling.n:
            found = joined([found, await self._generate(remaining(prompt, begun))])
        return found

    async def stream(self, prompt: Prompt) -> AsyncIterator[Chunk]:
        """Answer a prompt piece by piece."""
        found: list[Generation] = []
        while (begun := sum(len(one.choices) for one in found)) < prompt.sampling.n:
            with self.endpoint.kept_from_clients():
                async with aclosing(self._stream(remaining(prompt, begun))) as chunks:
                    async for chunk in chunks:
                        if chunk.generation is None:
                            yield replace(chunk, index=begun + chunk.index)
                        else:
                            found.append(chunk.generation)
        yield Chunk("", joined(found))

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        await self._clients.aclose()

    # -- inside ---------------------------------------------------------------------------------

    async def _generate(self, prompt: Prompt) -> Generation:
        with self.endpoint.kept_from_clients():
            async with _Asking(self, prompt, stream=False) as response:
                return await self._whole(response, prompt)

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[Chunk]:
        async with _Asking(self, prompt, stream=True) as response:
            if _is_document(response):
                generation = await self._whole(response, prompt)
                for index, choice in enumerate(generation.choices):
                    yield Chunk(choice.text, index=index, logprobs=choice.logprobs)
                yield Chunk("", generation)
                return
            assembly, is_done = Assembly(self.endpoint.asking(prompt), prompt.sampling.n), False
            events = read_events(response.aiter_bytes())
            async for event in events:
                if is_done := event.data.strip() == "[DONE]":
                    await _drain(events)
                    break
                for chunk in assembly.add(event):
                    yield chunk
        yield Chunk("", assembly.generation(is_done=is_done))

    async def post(self, prompt: Prompt, *, stream: bool) -> Reply:
        """Send a prompt; a refusal becomes our error, a connection that breaks does not yet."""
        body = self._body(prompt, stream=stream)
        if not self.options.allow_link_local:
            await self._host.require_allowed()
        client = await self._clients.get()
        response = await client.post(body, trace_headers())
        if response.is_success:
            return response
        try:
            said = await _read(response, MAX_REFUSAL)
        finally:
            await response.aclose()
        text, wait = said.decode(errors="replace"), retry_after(response.headers)
        raise refusal(self.endpoint.asking(prompt), response.status_code, text, wait)

    def _body(self, prompt: Prompt, *, stream: bool) -> bytes:
        if self._closed:
            raise closed(self.spec)
        if prompt.sampling.logprobs and "logprobs" not in self._offers:
            raise refuse(self.spec, "logprobs", self._offers)
        if "suffix" in prompt.extra:  # a chat has none, and servers drop what they do not know
            raise refuse(self.spec, "suffix", self._offers)
        own: dict[str, Any] = {"model": self.spec.model, "stream": stream}
        limit = prompt.sampling.max_tokens
        if limit is None and not {"max_tokens", "max_completion_tokens"} & prompt.extra.keys():
            limit = self.spec.limits.max_tokens
        if limit is not None:
            own[self.options.max_tokens_key] = limit
        if stream:
            asked = prompt.extra.get("stream_options")
            more = asked if isinstance(asked, Mapping) else {}
            own["stream_options"] = {**more, "include_usage": True}
        return request_body(self.endpoint, prompt, own)

    async def _whole(self, response: Reply, prompt: Prompt) -> Generation:
        size = response.headers.get("content-length", "")
        if size.isdecimal() and int(size) > MAX_REPLY:
            raise ExpertReplyError(
                f"{self.endpoint.where}: announced an answer of {size} bytes, more than "
                f"{MAX_REPLY}; ask for fewer tokens, or check options.base_url"
            )
        body = await _read(response, MAX_REPLY)
        content_type = response.headers.get("content-type", "")
        return parse_reply(self.endpoint, prompt, body, content_type)

    def _new_client(self) -> Client:
        options, limit = self.options, self.spec.limits.concurrency or 100
        headers = {"content-type": "application/json"}
        if self.endpoint.key:
            headers["authorization"] = f"Bearer {self.endpoint.key}"
        if self._transport is None and (self.endpoint.is_loopback or not getproxies()):
            return AiohttpClient(
                self.endpoint.url,
                headers,
                timeout=options.timeout,
                connect_timeout=options.connect_timeout,
                connections=limit,
                idle_seconds=_IDLE_SECONDS,
                ssl=httpx.create_ssl_context() if self.endpoint.url.startswith("https:") else None,
            )
        client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(options.timeout, connect=options.connect_timeout),
            limits=httpx.Limits(
                max_connections=limit,
                max_keepalive_connections=limit,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            follow_redirects=False,
            # A proxy of the environment cannot reach this machine's own ports.
            trust_env=not self.endpoint.is_loopback,
            transport=self._transport,
        )
        return HttpxClient(self.endpoint.url, client)


class _Asking:
    """A response while it is read; a connection that breaks until then becomes our error."""

    def __init__(self, llm: OpenAILLM, prompt: Prompt, *, stream: bool) -> None:
        self._llm, self._prompt, self._stream = llm, prompt, stream

    async def __aenter__(self) -> Reply:
        try:
            self._response = await self._llm.post(self._prompt, stream=self._stream)
        except httpx.HTTPError as error:
            raise broken(self._llm.endpoint, error, self._llm.options) from error
        return self._response

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        await self._response.aclose()
        if isinstance(error, httpx.HTTPError):
            raise broken(self._llm.endpoint, error, self._llm.options) from error


class _ClientPerLoop:
    """One pooled client per event loop: a connection lives and dies with the loop it began on.

    Each client belongs to a started async generator, because asyncio closes those when their
    loop ends or when nobody refers to them any more: exactly when the client must be closed.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._open: dict[
            asyncio.AbstractEventLoop,
            tuple[AsyncGenerator[Client, None], Client],
        ] = {}

    async def get(self) -> Client:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            for ended in [other for other in list(self._open) if other.is_closed()]:
                self._open.pop(ended, None)
            lifetime = self._lifetime()
            self._open[loop] = (lifetime, await anext(lifetime))
        return self._open[loop][1]

    async def aclose(self) -> None:
        """Close the client of the running loop; the other loops close theirs."""
        lifetime, _ = self._open.pop(asyncio.get_running_loop(), (None, None))
        self._open.clear()
        if lifetime is not None:
            await lifetime.aclose()

    async def _lifetime(self) -> AsyncGenerator[Client, None]:
        client = self._make()
        try:
            yield client
        finally:
            await client.aclose()


async def _read(response: Reply, limit: int) -> bytes:
    """Read a body, or its start where it is longer than anything we would ask for."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def _drain(events: AsyncIterator[Event]) -> None:
    """Read to the end of a finished stream: only then is the connection used again."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(0.2):
            async for _ in events:
                pass


def _is_document(response: Reply) -> bool:
    """Whether a server answered in one piece, or with a web page, though asked for a stream."""
    content_type = response.headers.get("content-type", "")
    return any(kind in content_type for kind in ("json", "html", "xml"))
