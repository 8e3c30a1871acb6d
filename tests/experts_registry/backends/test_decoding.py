import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts_registry.backends.decoding import (
    Job,
    TextBuilder,
    _generator,
    _perturbed,
    token_logprobs,
)
from experts_registry.types import Sampling


def pieces(tokenizer, text, stop=()):
    """Feed a text token by token; return what could be taken after each, and the builder."""
    builder, taken = TextBuilder(tokenizer, stop), []
    for token in tokenizer.encode(text, add_special_tokens=False):
        builder.add(token)
        taken.append(builder.take())
        if builder.is_stopped:
            break
    builder.finish()
    return [*taken, builder.take(is_final=True)], builder


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_token_by_token_gives_the_text(tokenizer, text):
    taken, builder = pieces(tokenizer, text)
    assert builder.text == text
    assert "".join(taken) == text


def test_a_character_of_several_tokens_appears_whole(tokenizer):
    taken, _ = pieces(tokenizer, "é🙂")
    assert [piece for piece in taken if piece] == ["é", "🙂"]
    assert len(taken) > 4


def test_an_unfinished_character_is_shown_at_the_end(tokenizer):
    builder = TextBuilder(tokenizer)
    for token in tokenizer.encode("a🙂", add_special_tokens=False)[:-1]:
        builder.add(token)
    assert builder.text == "a"
    builder.finish()
    assert builder.text.startswith("a\ufffd")


def test_special_tokens_are_not_text(tokenizer):
    assert pieces(tokenizer, "a<|user|>b")[1].text == "ab"


@given(
    text=st.text("abc", max_size=20),
    stop=st.lists(st.text("abc", max_size=3), max_size=3).map(tuple),
)
def test_a_stop_string_ends_the_text_and_is_never_taken(tokenizer, text, stop):
    taken, builder = pieces(tokenizer, text, stop)
    ends = [text.index(s) for s in stop if s and s in text]
    assert builder.is_stopped is bool(ends)
    assert "".join(taken) == builder.text
    # The stop string that was complete first ended the text; of one token's the earliest did.
    assert builder.text in {text[:end] for end in ends} if ends else builder.text == text


def test_what_may_become_a_stop_string_is_held_back(tokenizer):
    taken, _ = pieces(tokenizer, "xENxEND", ("END",))
    assert "".join(taken) == "xENx"
    assert taken[:4] == ["x", "", "", "ENx"]


def sampling(**keys):
    return Sampling(**{"temperature": 1.0, "seed": 0, **keys})


def draws(logits, count=4000, **keys):
    generator = _generator(sampling(**keys), torch.device("cpu"))
    found = [int(_perturbed(logits, sampling(**keys), generator).argmax()) for _ in range(count)]
    return torch.bincount(torch.tensor(found), minlength=len(logits)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_noise_samples_the_tempered_distribution(temperature):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    expected = (logits / temperature).softmax(-1)
    # Four standard errors of a frequency over 4000 draws are at most 0.032.
    assert torch.allclose(draws(logits, temperature=temperature), expected, atol=0.032)


def test_the_nucleus_holds_the_fewest_tokens_that_reach_its_mass():
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    assert draws(logits, top_p=0.5).tolist() == [0, 1, 0]
    inside = draws(logits, top_p=0.6)
    assert inside[0] == 0
    assert inside[1] == pytest.approx(0.625, abs=0.032)
    assert draws(logits, top_p=1e-9).tolist() == [0, 1, 0]


def test_a_seed_repeats_and_no_seed_does_not():
    logits = torch.zeros(1000)

    def first(seed):
        generator = _generator(sampling(seed=seed), torch.device("cpu"))
        return int(_perturbed(logits, sampling(), generator).argmax())

    assert first(7) == first(7)
    assert first(-7) == first(-7)
    assert len({first(None) for _ in range(20)}) > 1


@pytest.mark.parametrize("temperature", [None, 0.0, 1e-30])
def test_no_temperature_is_greedy(temperature):
    assert _generator(Sampling(temperature=temperature), torch.device("cpu")) is None


def test_logprobs_are_the_log_of_the_softmax(tokenizer):
    logits = torch.zeros(2, len(tokenizer))
    logits[1, 7] = 3.0
    found = token_logprobs(tokenizer, logits, [5, 7])
    size = len(tokenizer)
    assert found[0].logprob == pytest.approx(-math.log(size), rel=1e-5)
    assert found[1].logprob == pytest.approx(3 - math.log(size - 1 + math.exp(3)), rel=1e-5)
    assert found[0].token == tokenizer.decode([5])


def test_a_job_reports_logprobs_only_where_they_were_asked_for(tokenizer):
    job = Job([1], Sampling(max_tokens=1), TextBuilder(tokenizer))
    assert job.generation().logprobs is None
