import asyncio
import time

import pytest

from composer import Composer
from composer.trace import Trail
from experts_registry.errors import (
    ContextLengthError,
    ExpertBusyError,
    ExpertOverloadedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    RegistryError,
)
from experts_registry.registry import Registry

HEAD = "version: 1\nexperts:\n"


def expert(name, limits="", **options):
    said = ", ".join(f"{key}: {value}" for key, value in options.items())
    return (
        f"  - {{name: {name}, kind: llm, backend: echo, model: echo, limits: {{{limits}}}, "
        f"options: {{{said}}}}}\n"
    )


def composer(*lines, compositions=""):
    text = HEAD + "".join(lines) + (f"compositions:\n{compositions}" if compositions else "")
    return Composer(Registry.parse(text, path="experts.yaml"))


def asked(answer):
    return [step.expert for step in answer.steps]


def test_a_fallback_need_not_be_of_the_composition():
    auto = "  - {name: auto, experts: [down], fallbacks: {any: [also-down, up]}}\n"
    down = expert("down", fail="unavailable"), expert("also-down", fail="reply"), expert("up")
    with composer(*down, compositions=auto) as one:
        assert asked(one.query("hello")) == ["down", "also-down", "up"]
        stream = one.stream("hello")
        assert "".join(stream) == "hello"
        assert asked(stream.answer) == ["down", "also-down", "up"]


@pytest.mark.parametrize("size", [9, 9000])  # refused by the expert, and before it is asked
def test_a_long_prompt_goes_to_the_expert_that_is_named_for_it(size):
    small = expert("small").replace("options", "context_window: 8, options")
    auto = "  - {name: auto, experts: [small], fallbacks: {context_length: [long]}}\n"
    with composer(small, expert("long"), compositions=auto) as one:
        assert one.query("a " * size).expert == "long"
        assert one.query("short").expert == "small"


def test_a_prompt_too_long_for_all_is_said_to_be_so():
    small = expert("small").replace("options", "context_window: 8, options")
    with composer(small) as one, pytest.raises(ContextLengthError):
        one.query("a " * 9)


def test_an_expert_that_is_alone_is_asked_again():
    with composer(expert("shy", fail="unavailable", fail_times=2)) as one:
        answer = one.query("hello", model="shy")
        assert [step.error is None for step in answer.steps] == [False, False, True]
        stream = composer(expert("shy", fail="unavailable", fail_times=1)).stream("hi", model="shy")
        assert "".join(stream) == "hi"


def test_an_expert_with_an_alternative_is_asked_once():
    auto = "  - {name: auto, experts: [down, up], baseline: down}\n"
    with composer(expert("down", fail="unavailable"), expert("up"), compositions=auto) as one:
        assert asked(one.query("hello")) == ["down", "up"]


def test_an_expert_that_hangs_leaves_time_for_another():
    auto = "  - {name: auto, experts: [slow, up], baseline: slow, limits: {seconds: 1}}\n"
    with composer(expert("slow", delay=60), expert("up"), compositions=auto) as one:
        assert asked(one.query("hello")) == ["slow", "up"]
        stream = one.stream("hello")
        assert "".join(stream) == "hello"


def test_everything_is_tried_within_one_deadline():
    auto = "  - {name: auto, experts: [a, b], limits: {seconds: 0.4}}\n"
    slow = expert("a", delay=60), expert("b", delay=60)
    began = time.monotonic()
    with composer(*slow, compositions=auto) as one, pytest.raises(ExpertTimeoutError):
        one.query("hello")
    assert time.monotonic() - began < 10


def test_the_first_piece_of_a_stream_has_its_own_limit():
    with (
        composer(expert("slow", "first_token_seconds: 0.05", delay=60)) as one,
        pytest.raises(ExpertTimeoutError, match=r"no first token within 0\.05 s"),
    ):
        list(one.stream("hello", model="slow"))


def fail_often(one, model, kind):
    for _ in range(5):
        with pytest.raises(kind):
            one.query("hello", model=model)


def test_an_expert_that_keeps_failing_is_left_alone_and_not_chosen():
    auto = "  - {name: auto, experts: [down, up], baseline: down}\n"
    down = expert("down", "retries: 0", fail="unavailable")
    with composer(down, expert("up"), compositions=auto) as one:
        assert one.route("hello").primary == "down"
        fail_often(one, "down", ExpertUnavailableError)
        assert one.status()["down"].breaker == "open"
        with pytest.raises(ExpertOverloadedError) as refused:
            one.query("hello", model="down")
        assert 0 < refused.value.retry_after <= 5
        decision = one.route("hello")
        assert decision.primary == "up"
        assert any(c.excluded and "failed too often" in c.excluded for c in decision.candidates)
        assert asked(one.query("hello")) == ["up"]


def test_where_everybody_is_left_alone_they_are_still_ranked():
    auto = "  - {name: auto, experts: [down]}\n"
    with composer(expert("down", "retries: 0", fail="reply"), compositions=auto) as one:
        fail_often(one, "auto", Exception)
        assert one.route("hello").primary == "down"


def test_an_edit_keeps_what_is_known_of_experts_that_it_did_not_change(tmp_path):
    lines = expert("down", "retries: 0", fail="unavailable"), expert("up")
    with composer(*lines) as one:
        fail_often(one, "down", ExpertUnavailableError)
        edited = Registry.parse(HEAD + "".join((*lines, expert("new"))), path="experts.yaml")
        with Composer.over(edited, before=one) as two:
            assert two.status()["down"].breaker == "open"
            assert two.status()["new"].breaker == "closed"
        changed = Registry.parse(HEAD + expert("down"), path="experts.yaml")
        with Composer.over(changed, before=one) as three:
            assert three.query("hello", model="down").text == "hello"


def test_busy_without_a_time_is_asked_again_too():
    with composer(expert("busy", fail="busy", fail_times=1)) as one:
        assert one.query("hello", model="busy").text == "hello"
    with composer(expert("busy", "retries: 0", fail="busy")) as one, pytest.raises(ExpertBusyError):
        one.query("hello", model="busy")


def test_a_fallback_that_is_not_there_is_named_with_its_line():
    auto = "  - {name: auto, fallbacks: {any: [upp]}}\n"
    with pytest.raises(RegistryError, match=r"fallbacks.any.0: .*did you mean 'up'"):
        composer(expert("up"), compositions=auto)


def test_status_counts_calls_in_flight():
    with composer(expert("slow", "concurrency: 1", delay=60)) as one:
        assert one.status()["slow"].in_flight == 0
        streams = [one.achunks("hello", model="slow") for _ in range(3)]

        async def busy():
            tasks = [asyncio.create_task(anext(aiter(stream))) for stream in streams]
            while one.status()["slow"].in_flight < 3:
                await asyncio.sleep(0.01)
            found = one.status()["slow"]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return found

        found = one.run(busy())
        assert (found.waiting, found.breaker) == (2, "closed")
        assert one.status()["slow"].in_flight == 0


def test_a_call_that_an_open_breaker_refuses_is_told_so_at_once():
    with composer(expert("down", "retries: 1", fail="unavailable")) as one:

        async def down():
            calls = (one.aquery("hello", model="down") for _ in range(5))
            await asyncio.gather(*calls, return_exceptions=True)
            return await refused(one, "down")

        assert not one.run(down())  # it was not called


def test_what_finds_no_room_in_the_queue_does_not_wait_outside_it():
    with composer(expert("slow", "concurrency: 1, queue: 0", delay=60)) as one:

        async def crowded():
            first = asyncio.create_task(one.aquery("hello", model="slow"))
            while not one.status()["slow"].in_flight:
                await asyncio.sleep(0.01)
            steps = await refused(one, "slow")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return steps

        assert not one.run(crowded())


async def refused(one, model):
    """Return the tries of a call that is refused."""
    trail = Trail()
    with pytest.raises(ExpertOverloadedError):
        await one.aquery("hello", model=model, trail=trail)
    return trail.steps


def test_deployments_of_one_model_share_the_load():
    two = expert("one", reply="x"), expert("two", reply="x"), expert("other", reply="y")
    with composer(*two) as one:
        experts = [one.query("hello").expert for _ in range(6)]
        assert experts.count("one") == experts.count("two") == 3
        decision = one.route("hello")
        assert "of 2 with the same model the least busy" in decision.reason
