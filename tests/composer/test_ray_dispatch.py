"""Real workers: one cluster for the module, about ten seconds to start."""

import asyncio
import logging
import os
import signal

import pytest

from composer import Composer
from composer.collect import collect
from composer.graders import read_grader
from composer.queries import Query
from composer.ray_dispatch import RayDispatcher
from experts_registry.errors import (
    CapacityError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    PluginError,
    UnknownNameError,
)
from experts_registry.registry import Registry
from experts_registry.types import Prompt
from routers.data import RoutingDataset
from tests.composer.conftest import echo

pytestmark = [
    pytest.mark.ray,
    # Ray closes its sockets and temporary files in its own time.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

EXACT = {"type": "exact"}
SMALL = {"cpus": 0.1}


@pytest.fixture(scope="module")
def dispatcher():
    experts = [
        echo("quick", resources=SMALL),
        echo("pair", resources={"cpus": 0.1, "replicas": 2}, options={"delay": 0.2}),
        echo("thoughtful", resources=SMALL, options={"delay": 1.0}),
        echo("slow", resources=SMALL, options={"delay": 60}, limits={"seconds": 0.3}),
        echo("failing", resources=SMALL, options={"fail": "unavailable"}),
        echo("broken", resources=SMALL).model_copy(update={"backend": "nowhere:Missing"}),
        echo("remote", resources={"cpus": 0}),
    ]
    dispatcher = RayDispatcher({spec.name: spec for spec in experts})
    yield dispatcher
    asyncio.run(dispatcher.aclose())


async def kill(dispatcher, expert, after=0.3):
    pids = await dispatcher.pids(expert)
    await asyncio.sleep(after)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_worker_answers_from_a_process_of_its_own(dispatcher):
    async def main():
        return await dispatcher.generate("quick", Prompt.of("hi")), await dispatcher.pids("quick")

    answer, pids = asyncio.run(main())
    assert answer.text == "hi"
    assert pids
    assert os.getpid() not in pids


def test_replicas_share_the_calls(dispatcher):
    async def main():
        await dispatcher.load("pair")
        pids = await dispatcher.pids("pair")
        answers = [dispatcher.generate("pair", Prompt.of(f"{i}")) for i in range(8)]
        return pids, [a.text for a in await asyncio.gather(*answers)]

    pids, texts = asyncio.run(main())
    assert len(set(pids)) == 2
    assert texts == [str(i) for i in range(8)]


def test_a_killed_worker_is_replaced_and_its_calls_are_answered(dispatcher, caplog):
    async def main():
        before = await dispatcher.pids("thoughtful")
        killer = asyncio.create_task(kill(dispatcher, "thoughtful"))
        calls = [dispatcher.generate("thoughtful", Prompt.of(f"q{i}")) for i in range(6)]
        answers = await asyncio.gather(*calls)
        await killer
        return before, await dispatcher.pids("thoughtful"), [a.text for a in answers]

    with caplog.at_level(logging.WARNING):
        before, after, texts = asyncio.run(main())
    assert texts == [f"q{i}" for i in range(6)]
    assert before != after
    assert "thoughtful: its worker died" in caplog.text


def test_a_stream_begins_again_where_its_worker_dies_before_the_first_piece(dispatcher):
    async def main():
        killer = asyncio.create_task(kill(dispatcher, "thoughtful"))
        await asyncio.sleep(0.05)
        pieces = [chunk async for chunk in dispatcher.stream("thoughtful", Prompt.of("a b c"))]
        await killer
        return pieces

    pieces = asyncio.run(main())
    assert "".join(p.text for p in pieces) == "a b c"
    assert pieces[-1].generation.text == "a b c"


def test_errors_arrive_as_they_were_raised(dispatcher):
    with pytest.raises(ExpertUnavailableError, match="fails on purpose"):
        asyncio.run(dispatcher.generate("failing", Prompt.of("x")))
    with pytest.raises(PluginError, match="nowhere"):
        asyncio.run(dispatcher.generate("broken", Prompt.of("x")))


def test_a_deadline_cancels_the_call(dispatcher):
    with pytest.raises(ExpertTimeoutError, match=r"'slow': no answer within 0.3 s"):
        asyncio.run(dispatcher.generate("slow", Prompt.of("x")))


def test_an_expert_without_resources_is_called_from_here(dispatcher):
    async def main():
        chunks = [c.text async for c in dispatcher.stream("remote", Prompt.of("a b"))]
        return "".join(chunks), await dispatcher.pids("remote")

    assert asyncio.run(main()) == ("a b", [])


def test_an_unknown_expert_is_refused(dispatcher):
    with pytest.raises(UnknownNameError, match="did you mean 'quick'"):
        asyncio.run(dispatcher.generate("quik", Prompt.of("x")))


def test_more_gpus_than_there_are_is_an_error_and_not_a_wait(dispatcher):
    with pytest.raises(CapacityError, match=r"reserve 64 GPUs, the cluster has 0 free"):
        RayDispatcher({"a": echo("a", resources={"gpus": 64})})


def test_a_worker_killed_during_a_collection_costs_no_cell(dispatcher, tmp_path, caplog):
    queries = [
        Query(
            id=f"q{i}",
            prompt=Prompt.of(f"say {i}"),
            grader=read_grader(EXACT | {"answers": [f"say {i}"]}),
        )
        for i in range(12)
    ]
    spec = dispatcher.specs["thoughtful"]

    async def main():
        killer = asyncio.create_task(kill(dispatcher, "thoughtful"))
        done = await collect(
            queries, {spec.name: spec}, dispatcher.generate, tmp_path / "o.parquet", concurrency=6
        )
        await killer
        return done

    with caplog.at_level(logging.WARNING):
        done = asyncio.run(main())
    assert "thoughtful: its worker died" in caplog.text
    data = RoutingDataset.load(tmp_path / "o.parquet")
    assert data.quality.tolist() == [[1.0]] * 12
    assert done.asked == 12


def test_a_second_dispatcher_shares_the_cluster_and_leaves_it_running(dispatcher):
    async def main():
        second = RayDispatcher({"quick": echo("quick", resources=SMALL)})
        answer = await second.generate("quick", Prompt.of("second"))
        await second.aclose()
        return answer.text, (await dispatcher.generate("quick", Prompt.of("first"))).text

    assert asyncio.run(main()) == ("second", "first")


def test_closing_ends_the_calls_in_flight_with_a_clear_error(dispatcher):
    async def main():
        second = RayDispatcher({"a": echo("a", resources=SMALL, options={"delay": 60})})
        await second.load("a")
        calls = [asyncio.create_task(second.generate("a", Prompt.of("x"))) for _ in range(3)]
        await asyncio.sleep(0.3)
        await second.aclose()
        await second.aclose()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(ExpertUnavailableError, match="'a': the dispatcher is closed"):
            await second.generate("a", Prompt.of("x"))
        return ends

    assert {type(end) for end in asyncio.run(main())} == {ExpertUnavailableError}


def test_the_sdk_asks_workers_and_survives_a_kill(dispatcher, tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(
        "version: 1\nexperts:\n"
        "  - {name: quick, kind: llm, backend: echo, model: echo}\n"
        "  - {name: thoughtful, kind: llm, backend: echo, model: echo}\n"
    )
    composer = Composer(Registry.load(path), dispatcher=dispatcher)

    async def main():
        killer = asyncio.create_task(kill(dispatcher, "thoughtful"))
        answer = await composer.aquery("still here?", model="thoughtful")
        await killer
        return answer

    answer = asyncio.run(main())
    assert answer.text == "still here?"
    assert answer.steps[0].seconds > 0.9
