import asyncio
import time
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts_registry.backends.sse import MAX_EVENT, Event, read_events


def events(*chunks):
    async def body():
        for chunk in chunks:
            yield chunk

    async def read():
        return [event async for event in read_events(body())]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [Event("a"), Event("b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event("a"), Event("b")]),
        (b"data: a\r\rdata: b\r\r", [Event("a"), Event("b")]),
        (b": ping\n\ndata:a\n: ping\n\n", [Event("a")]),
        (b"data: a\ndata: b\n\n", [Event("a\nb")]),
        (b"event: error\nid: 7\ndata: a\n\n", [Event("a", "error")]),
        (b"data:  a\n\n", [Event(" a")]),
        (b"event: ping\n\n\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data: a\n\ndata: cut off", [Event("a")]),
        ("data: a\u2028b\x85c\x0bd\n\n".encode(), [Event("a\u2028b\x85c\x0bd")]),
        (b"data: a\n\r", [Event("a")]),
        (b"", []),
    ],
)
def test_events_are_read(text, expected):
    assert events(text) == expected


@given(st.lists(st.integers(0, 60), max_size=6))
def test_where_the_network_cuts_the_bytes_does_not_matter(cuts):
    text = "data: grün\r\n\r\n: c\r\nevent: e\r\ndata: 東京\r\ndata: x\r\n\r\n".encode()
    points = sorted({0, *[min(c, len(text)) for c in cuts], len(text)})
    pieces = [text[a:b] for a, b in pairwise(points)]
    assert events(*pieces) == [Event("grün"), Event("東京\nx", "e")]


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 65_536 + b"\n"])
def test_an_event_without_an_end_is_given_up(piece):
    endless = (piece for _ in range(2 * MAX_EVENT // len(piece)))
    with pytest.raises(httpx.DecodingError, match="an event of more than"):
        events(b"data: a\n\n", *endless)


def test_a_large_event_is_read_in_the_time_of_its_size():
    pieces = [b"x" * 1000] * 16_000
    began = time.process_time()
    (found,) = events(b"data: ", *pieces, b"\n\n")
    assert len(found.data) == 16_000_000
    assert time.process_time() - began < 10
