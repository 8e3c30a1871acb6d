import asyncio
from functools import wraps

import pytest

from composer.deadlines import deadline, timed
from experts_registry.errors import ExpertTimeoutError


def on_a_loop(test):
    @wraps(test)
    def run():
        asyncio.run(test())

    return run


async def forever():
    await asyncio.Event().wait()


@on_a_loop
async def test_time_that_is_up_is_the_experts_fault():
    with pytest.raises(ExpertTimeoutError, match=r"^expert 'a': no answer within 0.01 s"):
        async with deadline("expert 'a'", 0.01):
            await forever()
    assert asyncio.current_task().cancelling() == 0


@on_a_loop
async def test_inner_of_two_deadlines_rings_first():
    with pytest.raises(ExpertTimeoutError, match="inner"):
        async with deadline("outer", 60.0), deadline("inner", 0.01):
            await forever()


@on_a_loop
async def test_cancellation_by_others_stays_one():
    async def wait():
        async with deadline("expert 'a'", 60.0):
            await forever()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_a_loop
async def test_no_limit_and_errors_within_it_pass():
    async with deadline("expert 'a'", None):
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        async with deadline("expert 'a'", 60.0):
            raise KeyError


@on_a_loop
async def test_stream_ends_when_its_time_is_up_also_between_two_items():
    async def chunks():
        yield 1
        yield 2

    stream = timed(chunks(), "expert 'a'", 60.0, left=0.0)
    assert await anext(stream) == 1
    await asyncio.sleep(0.01)
    with pytest.raises(ExpertTimeoutError):
        await anext(stream)
