import asyncio
import os
import sys
import threading
import time
from importlib import import_module

import pytest

from composer import Composer
from composer.dispatch import LocalDispatcher
from experts_registry.backends.echo import EchoLLM
from experts_registry.errors import (
    ComposerError,
    ContextLengthError,
    ExpertReplyError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OptionError,
    PluginError,
    PromptError,
    RegistryError,
    UnknownNameError,
)
from experts_registry.registry import Registry
from routers.testing import synthetic_outcomes


@pytest.fixture
def composer(registry_path):
    with Composer.load(registry_path) as composer:
        yield composer


def test_an_expert_is_asked_by_name_and_priced(composer):
    answer = composer.query("three little words", model="cheap")
    assert answer.text == "three little words"
    assert answer.expert == "cheap"
    assert answer.cost == pytest.approx((3 * 1 + 3 * 2) / 1e6)
    assert answer.decision.reason == "asked by name"
    assert answer.registry == composer.registry.digest


def test_a_conversation_is_answered_from_its_last_user_turn(composer):
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "second"},
        {"role": "user", "content": "third"},
    ]
    assert composer.query(messages, model="cheap").text == "third"


def test_the_next_best_expert_answers_where_the_first_is_dead(composer):
    answer = composer.query("hello", model="shaky")
    assert [(s.expert, s.error is None) for s in answer.steps] == [("dead", False), ("cheap", True)]
    assert answer.decision.primary == "dead"
    assert answer.expert == "cheap"


def test_a_stream_fails_over_before_its_first_piece(composer):
    stream = composer.stream("one two three", model="shaky")
    assert "".join(stream) == "one two three"
    assert [s.expert for s in stream.answer.steps] == ["dead", "cheap"]


def test_a_stream_and_a_query_give_the_same_answer(composer):
    stream = composer.stream("so it goes", model="cheap")
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.answer.text == composer.query("so it goes", model="cheap").text


def test_an_unfinished_stream_has_no_answer(composer):
    stream = composer.stream("one two", model="cheap")
    next(iter(stream))
    with pytest.raises(Exception, match="read it to its end"):
        _ = stream.answer


def test_where_every_expert_fails_the_last_error_is_raised(composer):
    with pytest.raises(ExpertUnavailableError, match="'dead'"):
        composer.query("hello", model="doomed")


def test_an_expert_that_times_out_is_named_with_its_limit(composer):
    with pytest.raises(ExpertTimeoutError, match=r"'slow': no answer within 0.05 s"):
        composer.query("hello", model="slow")
    with pytest.raises(ExpertTimeoutError, match="'slow'"):
        list(composer.stream("hello", model="slow"))


def test_an_expert_above_the_price_limit_is_not_asked(composer):
    assert composer.route("short", model="frugal").primary == "cheap"
    decision = composer.route("short", model="frugal", max_tokens=1)
    assert decision.primary == "dear"  # the baseline, now that its answer is short enough


def test_the_composition_limits_the_answer(composer):
    answer = composer.query("one two three four", model="hasty")
    assert (answer.text, answer.generation.finish_reason) == ("one two", "length")
    stream = composer.stream("one two three four", model="hasty")
    assert "".join(stream) == "one two"


def test_auto_exists_without_being_declared(composer):
    decision = composer.route("hello")
    assert "no router is trained" in decision.reason
    assert {c.expert for c in decision.candidates} == {"cheap", "dear", "dead", "slow", "patient"}


def test_an_unknown_model_offers_the_nearest(composer):
    with pytest.raises(UnknownNameError, match=r"'chaep' is not one of .*did you mean 'cheap'"):
        composer.query("hello", model="chaep")


@pytest.mark.parametrize("empty", ["", "  \n", [], [{"role": "user", "content": []}]])
def test_an_empty_query_is_refused(composer, empty):
    with pytest.raises(PromptError, match="empty"):
        composer.query(empty)


def test_a_megabyte_is_refused_before_it_is_read_where_it_cannot_fit(registry_path):
    text = registry_path.read_text().replace(
        "price: {prompt: 9", "context_window: 1000, price: {prompt: 9"
    )
    registry_path.write_text(text)
    with (
        Composer.load(registry_path) as composer,
        pytest.raises(ContextLengthError, match="1000000 characters"),
    ):
        composer.query("x" * 1_000_000, model="dear")


def test_a_query_in_another_script_is_answered(composer):
    assert composer.query("东京在哪里?", model="shaky").text == "东京在哪里?"


def test_async_twins_agree_with_the_plain_verbs(registry_path):
    async def main():
        async with Composer.load(registry_path) as composer:
            answers = await asyncio.gather(
                *(composer.aquery(f"question {i}", model="shaky") for i in range(20))
            )
            pieces = [piece async for piece in composer.astream("a b", model="cheap")]
            decision = await composer.aroute("hi", model="frugal")
            words = await composer.aexplain("hi", model="frugal")
        return answers, pieces, decision, words

    answers, pieces, decision, words = asyncio.run(main())
    assert [a.text for a in answers] == [f"question {i}" for i in range(20)]
    assert pieces == ["a", " b"]
    assert decision.primary == "cheap"
    assert "dear" in words


def test_plain_verbs_work_inside_a_running_loop(composer):
    async def main():
        return composer.query("hello", model="cheap").text

    assert asyncio.run(main()) == "hello"


def test_a_closed_composer_refuses_calls(registry_path):
    composer = Composer.load(registry_path)
    composer.query("hello", model="cheap")
    composer.close()
    with pytest.raises(ExpertUnavailableError, match="closed"):
        composer.query("hello", model="dear")


def test_closing_twice_is_fine_and_ends_calls_in_flight(registry_path):
    composer = Composer.load(registry_path)
    ends = []

    def ask():
        try:
            composer.query("hello", model="patient")
        except ExpertUnavailableError as error:
            ends.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not composer.dispatcher._open:
        time.sleep(0.01)
    composer.close()
    composer.close()
    thread.join(timeout=10)
    assert ends == ["the composer was closed; make a new one"]


def test_a_plain_verb_on_the_composers_own_loop_is_refused(composer):
    async def main():
        return composer.query("hello", model="cheap")

    with pytest.raises(ComposerError, match="await aquery"):
        composer.run(main())


def test_a_stream_can_be_left_in_the_middle(composer):
    for _ in composer.stream("one two three", model="cheap"):
        break
    assert composer.query("still here", model="cheap").text == "still here"


def test_a_backend_that_breaks_is_an_error_that_names_it(composer, monkeypatch):
    monkeypatch.setattr(EchoLLM, "generate", None)
    with pytest.raises(ExpertReplyError, match=r"'cheap': its backend failed: TypeError"):
        composer.query("hello", model="cheap")


def test_an_unknown_strategy_is_refused_by_query_and_by_stream(registry_path):
    with registry_path.open("a") as file:
        file.write("  - {name: casc, experts: [cheap], strategy: cascade}\n")
    with Composer.load(registry_path) as composer:
        with pytest.raises(PluginError, match="'cascade'"):
            composer.query("hello", model="casc")
        with pytest.raises(PluginError, match="'cascade'"):
            list(composer.stream("hello", model="casc"))


def test_a_prompt_too_long_for_one_expert_goes_to_the_next(registry_path):
    text = registry_path.read_text().replace(
        "price: {prompt: 1,", "context_window: 4, price: {prompt: 1,"
    )
    registry_path.write_text(text)
    with Composer.load(registry_path) as composer:
        answer = composer.query("one two three four five six", model="frugal", max_tokens=8)
    assert answer.expert == "dear"


def test_one_stop_string_is_one_stop_string(composer):
    assert composer.query("hello world", model="cheap", stop="wor").text == "hello "
    assert composer.query("hello world", model="cheap", stop=None).text == "hello world"
    with pytest.raises(OptionError, match="stop: is a int"):
        composer.query("hello world", model="cheap", stop=5)


def test_a_composition_of_disabled_experts_says_so(registry_path):
    registry = Registry.load(registry_path)
    composer = Composer(registry, dispatcher=LocalDispatcher(registry.llms))
    only = registry.compositions["doomed"]
    assert only.experts == ("dead",)
    text = registry_path.read_text().replace("name: dead,", "name: dead, enabled: false,")
    registry_path.write_text(text)
    with pytest.raises(RegistryError):
        Composer.load(registry_path).query("x", model="doomed")
    composer.close()


STUCK = """\
import threading
import numpy as np

released = threading.Event()

class Stuck:
    digest = "stuck"

    def __init__(self, spec):
        pass

    def embed(self, texts, *, role):
        released.wait(30)
        return np.ones((len(texts), 1), np.float32)

    def close(self):
        pass
"""


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """A composer whose encoder embeds nothing until it is released."""
    (tmp_path / "stuck.py").write_text(STUCK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stuck", raising=False)
    synthetic_outcomes(5, n=20, experts=1, categories=1).save(tmp_path / "outcomes.parquet")
    text = (
        "version: 1\nencoder: stuck\nexperts:\n"
        "  - {name: expert-0, kind: llm, backend: echo, model: echo}\n"
        "  - {name: stuck, kind: retriever, backend: 'stuck:Stuck', model: x}\n"
        "compositions:\n  - {name: late, router: {type: knn, outcomes: outcomes.parquet}, "
        "limits: {seconds: 0.1}}\n"
    )
    with Composer(Registry.parse(text, path=tmp_path / "experts.yaml")) as one:
        yield one
        import_module("stuck").released.set()


def test_long_texts_that_are_embedded_do_not_hold_up_decisions(stuck):
    many = 2 * (os.cpu_count() or 1) + 8

    async def embed_and_route():
        embedding = [
            asyncio.create_task(stuck.aembed(["long"], model="stuck")) for _ in range(many)
        ]
        await asyncio.sleep(0)  # they begin
        async with asyncio.timeout(10):
            decision = await stuck.aroute("hello")
        import_module("stuck").released.set()
        assert len(await asyncio.gather(*embedding)) == many
        return decision.primary

    assert stuck.run(embed_and_route()) == "expert-0"


def test_a_decision_is_bounded_by_the_deadline_too(stuck):
    with pytest.raises(ExpertTimeoutError, match="no decision within"):
        stuck.query("hello", model="late")
