"""Names that a browser may be tricked into using for this machine (DNS rebinding)."""

import socket

import httpx
import pytest

from composer.http.app import create_app
from composer.key_store import KeyStore
from tests.composer.http.servers import running

FILE = "version: 1\nexperts: [{name: bird, kind: llm, backend: echo, model: echo}]\n"
GOOD = {"model": "bird", "messages": [{"role": "user", "content": "hello"}]}
OWN = ["127.0.0.1", "localhost:9", "LOCALHOST", "localhost.", "[::1]:8000", "127.0.0.2", "door.lan"]
OTHERS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "", "[::"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def raw(path):
    with (
        running(create_app(path, allowed_hosts=["door.lan"])) as url,
        httpx.Client(base_url=url, trust_env=False) as raw,
    ):
        yield raw


@pytest.mark.parametrize("host", OWN)
def test_a_server_answers_to_its_own_names(raw, host):
    assert raw.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", OTHERS)
def test_a_name_that_was_made_to_point_here_is_refused(raw, host):
    headers = {"host": host, "origin": f"http://{host}"}  # a browser takes them for one site
    for response in (
        raw.post("/v1/chat/completions", json=GOOD, headers=headers),
        raw.get("/v1/models", headers=headers),
        raw.get("/admin/registry", headers=headers),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (403, "host")
        assert "evil" not in response.text


@pytest.mark.parametrize("hosts", ["", "host: localhost\r\nhost: evil.example\r\n"])
def test_no_host_and_two_hosts_are_refused(raw, hosts):
    address = (raw.base_url.host, raw.base_url.port)
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(f"GET /v1/models HTTP/1.1\r\n{hosts}connection: close\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("where", ["/v1/models", "/metrics", "/admin/registry", "/admin/status"])
def test_a_page_of_another_site_reads_nothing_that_needs_no_key(raw, where):
    own = f"http://{raw.base_url.netloc.decode()}"
    assert raw.get(where, headers={"origin": own}).status_code == 200
    response = raw.get(where, headers={"origin": "http://evil.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin")


@pytest.mark.parametrize("where", ["/health", "/health/ready", "/openapi.json", "/ui"])
def test_what_is_no_secret_is_told_to_every_page(raw, where):
    assert raw.get(where, headers={"origin": "http://evil.example"}).status_code == 200


def test_health_answers_to_every_name(raw):
    assert raw.get("/health", headers={"host": "pod-7"}).status_code == 200


def test_with_keys_the_key_decides(path):
    store = KeyStore(path.parent / "keys.db")
    token = store.create("first").token
    store.close()
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        headers = {"host": "door.example"}
        assert raw.get("/v1/models", headers=headers).status_code == 401
        headers["authorization"] = f"Bearer {token}"
        assert raw.get("/v1/models", headers=headers).status_code == 200
