import asyncio

import pytest

from experts_registry.backends.echo import EchoLLM
from experts_registry.errors import (
    ContextLengthError,
    ExpertBusyError,
    ExpertUnavailableError,
    OffersError,
    OptionError,
    PromptError,
)
from experts_registry.testing import check_llm
from experts_registry.types import Message, Prompt


def ask(llm, text, **sampling):
    return asyncio.run(llm.generate(Prompt.of(text, **sampling)))


def test_echo_keeps_the_contract(spec):
    check_llm(EchoLLM(spec("echo")))


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({}, " two\n words "),
        ({"prefix": "You said:"}, "You said: two\n words "),
        ({"reply": "42"}, "42"),
        ({"reply": ""}, ""),
    ],
)
def test_echo_answers_exactly(spec, options, answer):
    assert ask(EchoLLM(spec("echo", options=options)), " two\n words ").text == answer


def test_tokens_are_words(spec):
    answer = ask(EchoLLM(spec("echo")), "one two three", max_tokens=2)
    assert (answer.text, answer.finish_reason) == ("one two", "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)


def test_the_file_limits_an_answer_where_the_caller_does_not(spec):
    llm = EchoLLM(spec("echo", limits={"max_tokens": 1}))
    assert ask(llm, "one two three").text == "one"
    assert ask(llm, "one two three", max_tokens=2).text == "one two"


def test_the_earliest_stop_string_ends_the_answer(spec):
    answer = ask(EchoLLM(spec("echo")), "a b c d", stop=("d", "b"))
    assert (answer.text, answer.finish_reason) == ("a ", "stop")


def test_a_failure_on_purpose_ends_after_so_many_calls(spec):
    llm = EchoLLM(spec("echo", options={"fail": "busy", "fail_times": 2}))
    for _ in range(2):
        with pytest.raises(ExpertBusyError, match="expert 'x': fails on purpose"):
            ask(llm, "hello")
    assert ask(llm, "hello").text == "hello"


def test_a_stream_can_fail_in_the_middle(spec):
    llm = EchoLLM(spec("echo", options={"fail": "unavailable", "fail_after": 2}))
    words = []

    async def read():
        async for chunk in llm.stream(Prompt.of("one two three")):
            words.append(chunk.text)

    with pytest.raises(ExpertUnavailableError):
        asyncio.run(read())
    assert words == ["one", " two"]


def test_a_prompt_longer_than_the_context_window_is_refused(spec):
    with pytest.raises(ContextLengthError, match=r"has 3 tokens and the context window 3"):
        ask(EchoLLM(spec("echo", context_window=3)), "one two three")


def test_logprobs_are_offered_unless_the_file_says_otherwise(spec):
    found = ask(EchoLLM(spec("echo")), "hello you", logprobs=True, top_logprobs=1).logprobs
    assert [(entry.token, entry.logprob) for entry in found] == [("hello", 0.0), (" you", 0.0)]
    assert [entry.top[0].token for entry in found] == ["hello", " you"]
    with pytest.raises(OffersError, match="does not offer logprobs, only text"):
        ask(EchoLLM(spec("echo", offers=["text"])), "hello", logprobs=True)


def test_several_answers_are_counted_together(spec):
    llm = EchoLLM(spec("echo"))
    answer = ask(llm, "one two", n=3)
    assert [choice.text for choice in answer.choices] == ["one two"] * 3
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)


def asking(**extra):
    return Prompt((Message("user", "hello"),), extra=extra)


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "auto"},
        {"functions": [{"name": "f"}]},
        {"tool_choice": "required"},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}, "tool_choice": "auto"},
        {"moderation": {"model": "m", "policy": {"input": {"mode": "block"}}}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {"a_key_of_tomorrow": 1},
    ],
)
def test_what_it_cannot_do_is_refused_and_not_ignored(spec, extra):
    with pytest.raises(OffersError):
        ask(EchoLLM(spec("echo")), asking(**extra))


@pytest.mark.parametrize("biases", [{"a": 1}, {"5": 101}, {"5": "much"}, [5], "5"])
def test_a_bias_that_is_none_is_refused(spec, biases):
    with pytest.raises(OptionError, match="logit_bias"):
        ask(EchoLLM(spec("echo")), asking(logit_bias=biases))


def test_a_bias_of_nothing_is_none_whatever_it_is_for(spec):
    assert ask(EchoLLM(spec("echo")), asking(logit_bias={"foo": 0})).text


def test_a_role_that_nobody_has_is_refused(spec):
    messages = [{"role": "king", "content": "rule"}, {"role": "user", "content": "hello"}]
    with pytest.raises(PromptError, match="'king' is no role"):
        ask(EchoLLM(spec("echo")), messages)


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": [], "functions": None},
        {"response_format": {"type": "text"}, "user": "me", "metadata": {"a": "b"}},
        {"logit_bias": {"5": 3}, "presence_penalty": 1.5},
    ],
)
def test_what_changes_nothing_is_taken(spec, extra):
    assert ask(EchoLLM(spec("echo")), asking(**extra)).text == "hello"


def test_a_reply_that_is_a_json_object_may_be_asked_for_as_one(spec):
    llm = EchoLLM(spec("echo", options={"reply": '{"a": 1}'}))
    assert ask(llm, asking(response_format={"type": "json_object"})).text == '{"a": 1}'
