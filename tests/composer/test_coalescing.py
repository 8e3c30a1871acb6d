import asyncio
from contextlib import aclosing

import pytest

from composer.coalescing import coalesced
from experts_registry.errors import ExpertUnavailableError
from experts_registry.types import Chunk, Generation

LONG = 60.0


async def pieces_of(chunks, seconds=LONG):
    async with aclosing(coalesced(chunks, seconds)) as joined:
        return [chunk async for chunk in joined]


async def answer(*texts, error=None):
    for text in texts:
        yield Chunk(text)
        if text == "pause":
            await asyncio.sleep(0)
    if error is not None:
        raise error
    yield Chunk("", Generation(text="".join(texts)))


def test_an_answer_is_the_same_in_fewer_pieces():
    pieces = asyncio.run(pieces_of(answer("a", "b", "pause", "c", "d")))
    assert "".join(piece.text for piece in pieces) == "abpausecd"
    assert len(pieces) < 6
    assert pieces[-1].generation.text == "abpausecd"


def test_a_piece_with_more_than_text_stays_apart_and_in_its_place():
    async def chunks():
        yield Chunk("a")
        yield Chunk("", extra={"tool_calls": []})
        yield Chunk("b")

    pieces = asyncio.run(pieces_of(chunks()))
    assert [(piece.text, piece.extra) for piece in pieces] == [
        ("a", {}), ("", {"tool_calls": []}), ("b", {}),
    ]  # fmt: skip


def test_no_piece_waits_for_another_one():
    async def stalling():
        yield Chunk("one")
        yield Chunk(" two")
        await asyncio.Event().wait()

    async def main():
        async with asyncio.timeout(10), aclosing(coalesced(stalling(), 0.01)) as joined:
            text = ""
            while text != "one two":
                text += (await anext(joined)).text

    asyncio.run(main())


def test_an_error_comes_after_the_pieces_before_it():
    seen = []

    async def main():
        failing = answer("a", "b", error=ExpertUnavailableError("broke"))
        async with aclosing(coalesced(failing, LONG)) as joined:
            async for chunk in joined:
                seen.append(chunk.text)

    with pytest.raises(ExpertUnavailableError, match="broke"):
        asyncio.run(main())
    assert "".join(seen) == "ab"


def test_who_stops_listening_stops_the_expert():
    async def main():
        is_stopped = asyncio.Event()

        async def endless():
            try:
                while True:
                    yield Chunk("a")
                    await asyncio.sleep(0)
            finally:
                is_stopped.set()

        async with aclosing(coalesced(endless(), 0.01)) as joined:
            await anext(joined)
        return is_stopped.is_set()

    assert asyncio.run(main())
