import asyncio
import threading
import time

import pytest

from composer.dispatch import LocalDispatcher
from composer.opening import open_embedder, open_llm
from composer.slots import Slots
from experts_registry.errors import (
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
    RegistryError,
    UnknownNameError,
)
from experts_registry.types import Prompt
from tests.composer.conftest import echo


def test_calls_beyond_the_concurrency_limit_wait_their_turn():
    spec = echo("a", limits={"concurrency": 2}, options={"delay": 0.05})
    dispatcher = LocalDispatcher({"a": spec})

    async def main():
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(dispatcher.generate("a", Prompt.of(f"{i}")) for i in range(6))
        )
        return [a.text for a in answers], time.perf_counter() - began

    texts, seconds = asyncio.run(main())
    assert texts == [str(i) for i in range(6)]
    assert seconds >= 0.15  # three rounds of two


def test_slots_are_shared_by_event_loops_and_survive_cancellation():
    slots, peak, inside = Slots(3), [], []
    lock = threading.Lock()

    async def hold(seconds):
        async with slots:
            with lock:
                inside.append(1)
                peak.append(len(inside))
            await asyncio.sleep(seconds)
            with lock:
                inside.pop()

    async def many():
        tasks = [asyncio.create_task(hold(0.01)) for _ in range(20)]
        await asyncio.sleep(0.005)
        for task in tasks[10:15]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    # Nothing leaked: three may enter at once, and no more than three ever did. (A cancelled
    # holder leaves its mark in `inside`, so the peak is bounded by the slots and those marks.)

    async def enter_three():
        await asyncio.wait_for(asyncio.gather(*(hold(0) for _ in range(3))), timeout=5)

    asyncio.run(enter_three())


def test_a_deadline_covers_the_wait_for_a_turn():
    spec = echo("a", limits={"concurrency": 1, "seconds": 0.1}, options={"delay": 30})
    dispatcher = LocalDispatcher({"a": spec})

    async def main():
        calls = [dispatcher.generate("a", Prompt.of("x")) for _ in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert {type(result) for result in asyncio.run(main())} == {ExpertTimeoutError}


def test_a_stream_may_be_read_by_several_tasks_under_a_deadline():
    dispatcher = LocalDispatcher({"a": echo("a", limits={"seconds": 5})})

    async def main():
        stream = dispatcher.stream("a", Prompt.of("one two three"))
        pieces = []
        while (chunk := await asyncio.create_task(anext(stream, None))) is not None:
            pieces.append(chunk.text)
        return pieces

    assert "".join(asyncio.run(main())) == "one two three"


def test_an_unknown_expert_is_refused():
    with pytest.raises(UnknownNameError, match="expert 'b' is not one of a"):
        asyncio.run(LocalDispatcher({"a": echo("a")}).generate("b", Prompt.of("x")))


def test_a_closed_dispatcher_refuses_calls():
    dispatcher = LocalDispatcher({"a": echo("a")})
    asyncio.run(dispatcher.aclose())
    with pytest.raises(ExpertUnavailableError, match="closed"):
        asyncio.run(dispatcher.generate("a", Prompt.of("x")))


def test_an_offer_that_the_backend_lacks_is_refused():
    with pytest.raises(OffersError, match="does not offer hidden"):
        open_llm(echo("a", offers=["text", "hidden"]))


def test_a_retriever_is_no_llm_and_an_llm_no_retriever():
    with pytest.raises(RegistryError, match="is a llm; a retriever is needed"):
        open_embedder(echo("a"))


def test_a_successor_keeps_open_what_did_not_change():
    specs = {name: echo(name, limits={"concurrency": 1}) for name in ("same", "changed", "gone")}
    edited = {"same": specs["same"], "changed": echo("changed", options={"prefix": "new: "})}

    async def main():
        old = LocalDispatcher(specs)
        for name in specs:
            await old.generate(name, Prompt.of("hello"))
        new = LocalDispatcher(edited, before=old)
        llm = await new._llm("same")
        assert llm is await old._llm("same")
        assert new._slots["same"] is old._slots["same"]
        gone = await old._llm("gone")
        await old.aclose()
        with pytest.raises(ExpertUnavailableError, match="closed"):
            await gone.generate(Prompt.of("hello"))
        texts = [(await new.generate(name, Prompt.of("hello"))).text for name in edited]
        assert texts == ["hello", "new: hello"]
        await new.aclose()
        with pytest.raises(ExpertUnavailableError, match="closed"):
            await llm.generate(Prompt.of("hello"))

    asyncio.run(main())
