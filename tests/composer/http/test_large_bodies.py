"""Bodies that are made to keep the server busy."""

import gzip
import threading
import time
from statistics import median

import httpx
import pytest

from tests.composer.http.test_errors import CHAT, GOOD, error_of

SIZE = 9_900_000
HOSTILE = {
    "lists": b'{"x": [' + b",".join([b"[]"] * (SIZE // 3)) + b"]}",
    "objects": b"[" + b",".join([b'{"a":1}'] * (SIZE // 8)) + b"]",
    "open": b"[" * SIZE,
    "numbers": b'{"x": [' + b",".join([b"1"] * (SIZE // 2)) + b"]}",
    "texts": b'{"x": [' + b",".join([b'""'] * (SIZE // 3)) + b"]}",
    "keys": b'{"x": {' + b",".join(b'"%d":1' % i for i in range(SIZE // 12)) + b"}}",
    "quotes": b'"' * SIZE,
    "escapes": b'{"x": "' + b"\\\\" * (SIZE // 2) + b'"}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_others_are_answered_while_a_hostile_body_is_read(raw, url, kind):
    """Beside one body of words alone, which is read as fast as any of that size can be."""
    plain = b'{"x": "' + b"word " * (SIZE // 5) + b'"}'
    usual, worst = _longest_wait(url, plain), _longest_wait(url, HOSTILE[kind])
    assert worst < max(0.3, 5 * usual), (worst, usual)


def _longest_wait(url, body):
    """Return how long /health took at most while a body was sent and refused."""
    waits = []
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for _ in range(3):
            done = threading.Event()
            sender = threading.Thread(target=_send, args=(url, body, done))
            sender.start()
            longest = 0.0
            while not done.is_set():
                began = time.monotonic()
                assert client.get("/health").status_code == 200
                longest = max(longest, time.monotonic() - began)
            sender.join()
            waits.append(longest)
    return median(waits)


def _send(url, body, done):
    try:
        response = httpx.post(f"{url}{CHAT}", content=body, timeout=60, trust_env=False)
        assert 400 <= response.status_code < 500
    finally:
        done.set()


def test_many_values_are_refused_and_as_many_brackets_in_a_text_are_not(raw):
    many = {**GOOD, "metadata": [[]] * 60_000}
    assert error_of(raw.post(CHAT, json=many))[:3] == (
        400,
        "invalid_request_error",
        "too_many_values",
    )
    text = 'a[{,"\\' * 200_000
    told = {**GOOD, "messages": [{"role": "user", "content": text}]}
    assert raw.post(CHAT, json=told).status_code == 200


def test_a_compressed_body_is_refused_before_it_is_read(raw):
    bomb = gzip.compress(b" " * 50_000_000)
    for name in ("gzip", "deflate", "br", "zstd", "identity, gzip"):
        response = raw.post(CHAT, content=bomb, headers={"content-encoding": name})
        assert error_of(response)[:3] == (415, "invalid_request_error", "unsupported_encoding")
    plain = raw.post(CHAT, json=GOOD, headers={"content-encoding": "identity"})
    assert plain.status_code == 200
