"""A real door over echo experts and a real upstream, and clients of it."""

import random
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from composer.http.app import create_app
from tests.composer.http.servers import running
from tests.composer.http.upstream import Upstream

REGISTRY = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 2}}
  - {name: lab/dear, kind: llm, backend: echo, model: echo, context_window: 50,
     price: {prompt: 9, completion: 9}}
  - {name: dead, kind: llm, backend: echo, model: echo, limits: {retries: 0},
     options: {fail: unavailable}}
  - {name: cut, kind: llm, backend: echo, model: echo,
     options: {fail: unavailable, fail_after: 2}}
  - {name: slow, kind: llm, backend: echo, model: echo, limits: {seconds: 0.05},
     options: {delay: 30}}
  - {name: far, kind: llm, backend: openai, model: far-1, limits: {retries: 0},
     options: {base_url: "URL/v1"}}
  - {name: far-busy, kind: llm, backend: openai, model: far-1, limits: {retries: 0},
     options: {base_url: "URL/v1"}}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 16}}
compositions:
  - {name: auto, experts: [cheap, lab/dear]}
  - {name: shaky, experts: [dead, cheap], baseline: dead}
  - {name: mixed, experts: [cheap, far], baseline: cheap}
"""


@pytest.fixture(scope="module")
def upstream():
    return Upstream()


@pytest.fixture(scope="module")
def upstream_url(upstream):
    with running(upstream) as url:
        yield url


@pytest.fixture(scope="module")
def registry_path(upstream_url, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("door") / "experts.yaml"
    path.write_text(REGISTRY.replace("URL", upstream_url))
    return path


@pytest.fixture(scope="module")
def url(registry_path):
    with running(create_app(registry_path)) as url:
        yield url


@pytest.fixture(scope="module")
def raw(url):
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def free_port():
    """Return a port that nobody listens on, nor will: none of those that the system deals out."""

    def found():
        for port in random.sample(range(20000, 29000), 100):
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return port
        raise OSError("no port is free")

    return found
