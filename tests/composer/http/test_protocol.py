"""Raw sockets against a real server: clients that are slow, stuck, or do not speak HTTP."""

import asyncio
import json
import socket
import time
from contextlib import contextmanager
from functools import partial

import httpx
import pytest

from composer.http.app import create_app
from composer.http.protocol import MAX_HEAD, DoorProtocol, Patience
from tests.composer.http.servers import running, until

FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: flood, kind: llm, backend: openai, model: flood, options: {base_url: "URL/v1"}}
"""
BODY = json.dumps({"model": "bird", "messages": [{"role": "user", "content": "hello"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
SIZED = HEAD + b"content-length: %d\r\n" % len(BODY)
QUICK = Patience(head=0.4, body=0.4, rate=100_000, write=0.4)


class Flood:
    """An upstream that streams for as long as it is read."""

    def __init__(self):
        self.sent, self.is_over = 0, False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        delta = {"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]}
        event = b"data: " + json.dumps(delta).encode() + b"\n\n"
        gone = asyncio.create_task(receive())
        while not gone.done() and self.sent < 1_000_000_000:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self.sent += len(event)
        self.is_over = True


@pytest.fixture
def flood():
    return Flood()


@pytest.fixture
def app(flood, tmp_path):
    with running(flood) as upstream:
        (tmp_path / "experts.yaml").write_text(FILE.replace("URL", upstream))
        yield create_app(tmp_path / "experts.yaml")


@pytest.fixture
def url(app):
    with running(app, http=DoorProtocol) as url:
        yield url


@pytest.fixture
def quick(app):
    with running(app, http=partial(DoorProtocol, patience=QUICK), timeout_keep_alive=1) as url:
        yield url


@contextmanager
def connected(url, receive_buffer=None):
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect((host, int(port)))
        yield client


def read_to_end(client):
    read = b""
    while piece := client.recv(65_536):
        read += piece
    return read


def read_answer(client):
    """Read one answer of a connection that stays open."""
    read = b""
    while b"\r\n\r\n" not in read or len(read.partition(b"\r\n\r\n")[2]) < sized(read):
        piece = client.recv(65_536)
        assert piece, read
        read += piece
    return read


def sized(raw):
    return int(raw.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def parsed(raw):
    """Return status, headers and JSON of one answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert len(body) == int(headers["content-length"])
    return int(status.split()[1]), headers, json.loads(body)


def refused(raw):
    status, headers, body = parsed(raw)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["connection"] == "close"
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    return status, body["error"]["code"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost : x\r\n\r\n",
        SIZED + b"content-length: 1\r\n\r\n" + BODY,
        SIZED + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_of_the_api(url, sent):
    with connected(url) as client:
        client.sendall(sent)
        assert refused(read_to_end(client)) == (400, "invalid_http")


def test_headers_without_an_end_are_refused_at_their_limit(url):
    with connected(url) as client:
        client.sendall(HEAD + b"x-long: ")
        sent = 0
        while sent <= MAX_HEAD:
            sent += client.send(b"a" * 8192)
        assert refused(read_answer(client)) == (431, "headers")


@pytest.mark.parametrize(
    "start",
    [SIZED + b"x-long: %s\r\n\r\n", b"POST /%s HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"],
    ids=["header", "path"],
)
@pytest.mark.parametrize("size", [MAX_HEAD, 70_000, 120_000])
def test_headers_that_come_at_once_have_the_same_limit(url, start, size):
    with connected(url) as client:
        client.sendall(start % (b"a" * size) + BODY)
        assert refused(read_to_end(client)) == (431, "headers")


def test_headers_just_below_their_limit_are_read(url):
    with connected(url) as client:
        long = b"x-long: %s\r\n" % (b"a" * (MAX_HEAD - 500))
        client.sendall(SIZED + long + b"connection: close\r\n\r\n" + BODY)
        assert parsed(read_to_end(client))[0] == 200
    with connected(url) as client:
        client.sendall(b"GET /%s HTTP/1.0\r\n\r\n" % (b"a" * (MAX_HEAD - 21)))
        assert parsed(read_to_end(client))[0] == 404


def test_http_1_0_needs_no_host(url):
    with connected(url) as client:
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert parsed(read_to_end(client))[0] == 200


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("is_split", [False, True])
def test_a_request_that_asks_for_http_2_keeps_its_body(url, is_chunked, is_split):
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if is_chunked else BODY
    head = HEAD + b"transfer-encoding: chunked\r\n" if is_chunked else SIZED
    with connected(url) as client:
        sent = head + upgrade + b"\r\n" + body
        for piece in [sent[:40], sent[40:-10], sent[-10:]] if is_split else [sent]:
            client.sendall(piece)
            time.sleep(0.05 * is_split)
        status, _, answer = parsed(read_answer(client))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "hello")
        last = upgrade.replace(b"Upgrade,", b"Upgrade, close,")
        client.sendall(SIZED + last + b"\r\n" + BODY)  # the connection lives, until it is told
        assert parsed(read_to_end(client))[0] == 200


def test_two_requests_at_once_are_answered_in_turn(url):
    with connected(url) as client:
        client.sendall(SIZED + b"\r\n" + BODY + SIZED + b"connection: close\r\n\r\n" + BODY)
        assert read_to_end(client).count(b"HTTP/1.1 200 OK") == 2


def test_trailers_are_nobodys_headers(url):
    chunked = b"%x\r\n%s\r\n0\r\norigin: https://evil.example\r\n\r\n" % (len(BODY), BODY)
    with connected(url) as client:
        client.sendall(HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunked)
        assert parsed(read_to_end(client))[0] == 200


def test_a_client_that_asks_nothing_is_hung_up_on(quick):
    with connected(quick) as client:
        assert read_to_end(client) == b""


@pytest.mark.parametrize("noise", [b"\r\n", b"GET"])
def test_so_is_one_that_asks_nothing_more(quick, noise):
    with connected(quick) as client:
        client.sendall(SIZED + b"\r\n" + BODY)
        assert parsed(read_answer(client))[0] == 200
        client.sendall(noise)
        rest = read_to_end(client)
        assert (rest and refused(rest)) == (b"" if noise == b"\r\n" else (408, "request_timeout"))


def test_an_idle_connection_is_closed_after_a_while(quick):
    with connected(quick) as client:
        client.sendall(SIZED + b"\r\n" + BODY)
        assert parsed(read_to_end(client))[0] == 200


@pytest.mark.parametrize("start", [HEAD + b"x-slow: ", SIZED + b"\r\n"], ids=["head", "body"])
def test_drops_of_a_request_do_not_hold_a_connection(quick, start):
    with connected(quick) as client:
        client.sendall(start)
        client.settimeout(0.1)
        read = b""
        for _ in range(100):
            try:
                if read := client.recv(65_536):
                    break
            except TimeoutError:
                client.sendall(b" ")
        assert refused(read) == (408, "request_timeout")


def test_a_large_body_may_take_longer_the_more_of_it_comes(quick):
    text = json.dumps({"model": "bird", "messages": [{"role": "user", "content": "a" * 300_000}]})
    began = time.monotonic()
    with connected(quick) as client:
        client.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(text))
        for start in range(0, len(text), 50_000):
            client.sendall(text[start : start + 50_000].encode())
            time.sleep(0.15)
        assert read_to_end(client).startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - began > QUICK.body


def test_a_reader_that_is_stuck_ends_its_stream_and_holds_little_of_it(quick, flood):
    body = BODY.replace(b"bird", b"flood").replace(b"{", b'{"stream": true, ', 1)
    with connected(quick, receive_buffer=4096) as client:
        client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        until(lambda: flood.is_over, 20)
    assert flood.sent < 50_000_000  # what sockets hold
    assert httpx.get(f"{quick}/health", trust_env=False).status_code == 200
