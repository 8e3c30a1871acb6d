import asyncio
import time

import pytest

from composer.explanation import decision_json, explain
from composer.grounding import tokens_of
from experts_registry.errors import OptionError, PromptError, RegistryError, UnknownNameError
from tests.composer.libraries import FACTS, Shelf, library

CANTEEN = "When does the canteen open?"
PUMP = "Which button will reset the pump?"


def ids(passages):
    return [passage.id for passage in passages]


def test_passages_come_before_the_question_and_with_the_answer():
    with library() as composer:
        answer = composer.query(CANTEEN, model="grounded")
    assert ids(answer.passages)[0] == "handbook-1"
    assert FACTS["handbook"][1] in answer.text  # the echo of the prompt
    assert answer.text.endswith(CANTEEN)
    assert answer.query == CANTEEN
    retrieval = answer.decision.retrieval
    assert (retrieval.store, retrieval.k, retrieval.stage) == ("handbook", 2, "file")
    assert [one.id for one in retrieval.found] == ids(answer.passages)
    assert not answer.is_ungrounded


def test_the_caller_may_want_none_or_insist():
    with library() as composer:
        never = composer.query(CANTEEN, model="grounded", retrieval="never")
        always = composer.query(CANTEEN, model="shy", retrieval="always")
        usual = composer.query(CANTEEN, model="shy")
    assert never.text == usual.text == CANTEEN
    assert not never.passages
    assert not never.is_ungrounded
    assert never.decision.retrieval.stage == "request"
    assert usual.decision.retrieval.stage == "file"
    assert len(always.passages) == 3


def test_a_composition_without_a_store_refuses_to_retrieve_and_else_knows_nothing_of_it():
    with library() as composer:
        assert composer.query("hello", model="plain", retrieval="auto").decision.retrieval is None
        for model in ("plain", "echo"):
            with pytest.raises(OptionError, match=r"retrieval: .*'(plain|echo)'"):
                composer.query("hello", model=model, retrieval="always")
        with pytest.raises(OptionError, match="'sometimes' is not one of auto, never, always"):
            composer.query("hello", model="grounded", retrieval="sometimes")


@pytest.mark.parametrize(("query", "store"), [(CANTEEN, "handbook"), (PUMP, "manual")])
def test_of_several_stores_the_one_nearest_to_the_question_is_read(query, store):
    with library() as composer:
        answer = composer.query(query, model="either")
        assert composer.retrieve(query).store == store
    assert answer.decision.retrieval.store == store
    assert {p.store for p in answer.passages} == {store}
    assert store in answer.decision.retrieval.reason


def test_a_masked_store_is_never_searched():
    shelf = Shelf()
    with library(shelf) as composer:
        masked = composer.query(PUMP, model="either", stores={"handbook"})
        assert masked.decision.retrieval.store == "handbook"
        nothing = composer.query(PUMP, model="either", stores=set())
        with pytest.raises(UnknownNameError, match="store 'manual' is not one of handbook"):
            composer.retrieve(PUMP, store="manual", stores={"handbook"})
    assert set(shelf.searched) == {"handbook"}
    assert nothing.text == PUMP
    assert "manual" not in nothing.decision.retrieval.reason


def test_what_a_caller_may_read_is_a_set_of_names_and_k_a_number():
    with library() as composer:
        for ask in (composer.query, composer.retrieve):
            with pytest.raises(OptionError, match="stores: 'handbook' is a text"):
                ask(CANTEEN, stores="handbook")
        for k in ("2", 0, 2.5, True):
            with pytest.raises(OptionError, match="k: "):
                composer.retrieve(CANTEEN, k, store="handbook")
        with pytest.raises(RegistryError, match="may read none"):
            composer.retrieve(CANTEEN, stores=set())


def test_a_broken_store_costs_its_passages_and_not_the_answer(caplog):
    with library(Shelf(broken=["handbook"])) as composer:
        answer = composer.query(CANTEEN, model="grounded")
        other = composer.query(CANTEEN, model="either")
    assert answer.text == CANTEEN
    assert answer.is_ungrounded
    retrieval = answer.decision.retrieval
    assert (retrieval.store, retrieval.stage) == (None, "failure")
    assert "ArtefactError" in retrieval.reason
    assert "is not built" in caplog.text
    assert other.decision.retrieval.store == "manual"
    assert "'handbook' could not be searched" in other.decision.retrieval.reason


def test_a_plug_in_that_breaks_while_searching_costs_no_answer_and_repeats_no_query(caplog):
    class Broken(Shelf):
        def search(self, store, query, k, *, retriever=None):
            raise ValueError(query)

    with library(Broken()) as composer:
        answer = composer.query("my secret", model="grounded")
    assert answer.is_ungrounded
    assert "ValueError" in answer.decision.retrieval.reason
    assert "secret" not in caplog.text + answer.decision.retrieval.reason


def test_a_slow_store_is_not_waited_for_once_it_was_opened():
    shelf = Shelf(delay=0.2)
    with library(shelf) as composer:
        opening = composer.query(CANTEEN, model="hasty")
        shelf.delay = 3
        began = time.perf_counter()
        answer = composer.query(CANTEEN, model="hasty")
        assert time.perf_counter() - began < 2.5
    assert opening.passages
    assert answer.is_ungrounded
    assert "within 0.05 s" in answer.decision.retrieval.reason


def test_searching_does_not_hold_the_event_loop():
    async def beats(composer):
        task = asyncio.create_task(composer.aquery(CANTEEN, model="grounded"))
        count = 0
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    with library(Shelf(delay=0.5)) as composer:
        assert asyncio.run(beats(composer)) >= 5


def test_an_empty_store_is_as_none():
    with library(Shelf({"handbook": (), "manual": ()})) as composer:
        answer = composer.query(CANTEEN, model="grounded")
        assert composer.retrieve(CANTEEN, store="handbook").passages == ()
    assert answer.text == CANTEEN
    assert answer.decision.retrieval.stage == "failure"


def test_a_stream_gives_the_same_and_tells_its_passages_with_the_first_piece():
    with library() as composer:
        whole = composer.query(CANTEEN, model="grounded")
        stream = composer.stream(CANTEEN, model="grounded")
        pieces = iter(stream)
        first = next(pieces)
        told = stream.passages
        text = first + "".join(pieces)
    assert text == stream.answer.text == whole.text
    assert told == stream.answer.passages == whole.passages


def test_citations_are_those_of_the_text():
    expert = (
        "  - {name: citing, kind: llm, backend: echo, model: echo, "
        'options: {reply: "At noon [1]."}}\n'
    )
    more = "  - {name: cites, experts: [citing], retrieval: {store: handbook}}\n"
    with library(experts=expert, compositions=more) as composer:
        answer = composer.query(CANTEEN, model="cites")
        stream = composer.stream(CANTEEN, model="cites")
        list(stream)
    (citation,) = answer.citations
    assert answer.text[citation.start : citation.end] == "[1]"
    assert answer.passages[citation.passage - 1].id == "handbook-1"
    assert stream.answer.citations == answer.citations


def test_each_expert_gets_what_fits_its_window_and_the_question_always():
    texts = {"handbook": ["canteen " * 40] * 3, "manual": ()}
    experts = (
        "  - {name: broken, kind: llm, backend: echo, model: echo, context_window: 100000, "
        "options: {fail: unavailable}}\n"
        "  - {name: small, kind: llm, backend: echo, model: echo, context_window: 340, "
        "limits: {max_tokens: 90}}\n"
    )
    more = (
        "  - {name: failing, experts: [broken], fallbacks: {any: [small]}, "
        "retrieval: {store: handbook}}\n"
    )
    with library(Shelf(texts), experts=experts, compositions=more) as composer:
        answer = composer.query("canteen?", model="failing")
    assert answer.expert == "small"
    assert [step.passages for step in answer.steps] == [3, len(answer.passages)]
    assert 0 < len(answer.passages) < 3
    sent = answer.generation.usage.prompt_tokens
    assert sent <= 340 - 90


def test_an_expert_that_has_less_room_than_estimated_is_asked_with_fewer_and_then_none():
    texts = {"handbook": ["a b c d e f g h " * 20] * 3, "manual": ()}  # more tokens than estimated
    experts = (
        "  - {name: dense, kind: llm, backend: echo, model: echo, context_window: 500, "
        "limits: {max_tokens: 8}}\n"
        "  - {name: tiny, kind: llm, backend: echo, model: echo, limits: {max_tokens: 8}}\n"
    )
    more = "  - {name: dense-only, experts: [dense], retrieval: {store: handbook}}\n"
    with library(Shelf(texts), experts=experts, compositions=more) as composer:
        answer = composer.query("why?", model="dense-only")
    assert answer.expert == "dense"
    assert len(answer.passages) < 3
    assert answer.steps[0].error is not None


def test_what_passages_cost_is_on_the_bill():
    with library() as composer:
        bare = composer.query(CANTEEN, model="grounded", retrieval="never")
        full = composer.query(CANTEEN, model="grounded")
    assert full.steps[-1].usage.prompt_tokens > bare.steps[-1].usage.prompt_tokens
    assert full.cost > bare.cost


def test_a_limit_in_usd_counts_the_passages():
    texts = {"handbook": ["canteen " * 400] * 3, "manual": ()}
    experts = (
        "  - {name: dear, kind: llm, backend: echo, model: echo, price: {prompt: 900}, "
        "limits: {max_tokens: 5}}\n"
    )
    more = (
        "  - {name: frugal, experts: [echo, dear], baseline: dear, "
        "limits: {usd_per_request: 0.05}, retrieval: {store: handbook}}\n"
    )
    with library(Shelf(texts), experts=experts, compositions=more) as composer:
        assert composer.route("canteen?", model="frugal", retrieval="never").primary == "dear"
        assert composer.route("canteen?", model="frugal").primary == "echo"
    assert tokens_of("canteen " * 400) > 0


def test_route_and_explain_say_whether_and_why_without_asking():
    with library() as composer:
        decision = composer.route(PUMP, model="either")
        words = composer.explain(PUMP, model="either")
        never = composer.explain(PUMP, model="either", retrieval="never")
    assert decision_json(decision)["retrieval"]["found"][0]["id"] == "manual-0"
    assert explain(decision).count("manual-0") == 1
    assert "2 passages from manual, by file" in words
    assert "found by words: manual-0" in words
    assert "no passages, by request" in never


def test_retrieve_searches_where_it_is_told():
    with library() as composer:
        found = composer.retrieve(PUMP, 1, store="handbook", retriever="words")
        assert found.store == "handbook"
        assert len(found.passages) == 1
        with pytest.raises(UnknownNameError, match="'tales'"):
            composer.retrieve(PUMP, store="tales")
        with pytest.raises(UnknownNameError, match="'nobody'"):
            composer.retrieve(PUMP, retriever="nobody")
        with pytest.raises(OptionError, match="k: 0"):
            composer.retrieve(PUMP, 0)
        with pytest.raises(PromptError, match="empty"):
            composer.retrieve(" ")
        assert asyncio.run(composer.aretrieve(PUMP)).store == "manual"
