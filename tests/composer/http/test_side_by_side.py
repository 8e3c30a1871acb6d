"""Streams of several prompts, read by clients that are slow or leave."""

import asyncio
from contextlib import aclosing

from composer import Composer
from composer.http.answers import EventStream
from composer.http.shapes import ChatEvents
from composer.http.side_by_side import SideBySide
from experts_registry.registry import Registry

EXPERT = "  - {name: wordy, kind: llm, backend: echo, model: echo, options: {reply: REPLY}}\n"


def composer(words):
    text = "version: 1\nexperts:\n" + EXPERT.replace("REPLY", "word " * words)
    return Composer(Registry.parse(text, path="experts.yaml"))


def side_by_side(one, prompts=3):
    return SideBySide([one.achunks("hello", model="wordy") for _ in range(prompts)], 1)


def test_a_reader_who_leaves_after_the_first_piece_ends_every_call():
    async def leave(one):
        streams = side_by_side(one)
        async with aclosing(streams):
            await anext(aiter(streams))
        return one.status()["wordy"].in_flight

    with composer(100) as one:
        assert one.run(leave(one)) == 0


def test_experts_wait_for_a_reader_that_is_slow():
    async def read_one(one):
        streams = side_by_side(one)
        async with aclosing(streams):
            await anext(aiter(streams))
            await anext(aiter(streams))
            for _ in range(1000):  # turns of the loop in which experts could go on
                await asyncio.sleep(0)
            return one.status()["wordy"].in_flight

    with composer(500) as one:
        assert one.run(read_one(one)) == 3


def test_a_client_that_is_gone_before_the_first_byte_ends_the_call():
    async def vanish(one):
        chunks = one.achunks("hello", model="wordy")
        first = await anext(aiter(chunks))
        stream = EventStream(ChatEvents("1", "wordy", 0, False), chunks, first, None)
        task = asyncio.create_task(stream({}, None, never_sent))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return one.status()["wordy"].in_flight

    async def never_sent(_message):
        await asyncio.Event().wait()

    with composer(100) as one:
        assert one.run(vanish(one)) == 0
