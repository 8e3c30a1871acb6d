import asyncio
import socket

import pytest

from experts_registry.backends.addresses import ResolvedHost
from experts_registry.backends.openai import OpenAILLM
from experts_registry.errors import ExpertUnavailableError
from experts_registry.types import Prompt


def pointing_to(monkeypatch, *addresses):
    """A name service of our own: every name has these addresses, one after the other."""
    left = list(addresses)
    real = socket.getaddrinfo

    def lookup(host, port, *rest, **options):
        if isinstance(host, bytes):
            host = host.decode()
        if host.endswith(".example"):
            host = left.pop(0) if len(left) > 1 else left[0]
        return real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def ask(spec, **options):
    llm = OpenAILLM(spec("openai", options={"base_url": "http://model.example:9/v1", **options}))

    async def asked():
        try:
            await llm.generate(Prompt.of("hello"))
        finally:
            await llm.aclose()

    with pytest.raises(ExpertUnavailableError) as raised:
        asyncio.run(asked())
    return str(raised.value)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"])
def test_a_name_that_points_to_credentials_is_not_asked(spec, monkeypatch, address):
    pointing_to(monkeypatch, address)
    said = ask(spec)
    assert "'model.example' points to" in said
    assert "link-local" in said


def test_a_name_that_points_here_is_asked(spec, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    pointing_to(monkeypatch, "127.0.0.1")
    assert "link-local" not in ask(spec)  # nobody listens


def test_a_name_that_turns_to_credentials_is_asked_no_more(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("experts_registry.backends.addresses.time.monotonic", lambda: clock[0])
    pointing_to(monkeypatch, "127.0.0.1", "169.254.169.254")
    host = ResolvedHost("expert 'x'", "model.example")
    asyncio.run(host.require_allowed())
    asyncio.run(host.require_allowed())  # fresh, so not looked up
    clock[0] += 31
    for _ in range(2):
        with pytest.raises(ExpertUnavailableError, match="169"):
            asyncio.run(host.require_allowed())


def test_a_name_that_may_be_link_local_is_asked(spec, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    pointing_to(monkeypatch, "127.0.0.1", "169.254.169.254")
    assert "link-local" not in ask(spec, allow_link_local=True)


def test_an_unknown_name_is_told_by_the_connection(spec, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "link-local" not in ask(spec)


def unknown(*_, **__):
    raise socket.gaierror(socket.EAI_NONAME, "unknown")
