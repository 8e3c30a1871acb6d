import pytest

from experts_registry.backends.redaction import without

PROMPT = "Dear doctor,\n my   secret illness is gout, what now?"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("no: Dear doctor, my secret illness is gout, what now?", "no: ***"),
        ("bad prompt 'my secret illness is g...'", "bad prompt '***...'"),
        ("the model does not exist", "the model does not exist"),
        (
            "what now? is short enough to be an accident",
            "what now? is short enough to be an accident",
        ),
        ("", ""),
    ],
)
def test_longer_parts_of_the_prompt_are_hidden(said, left):
    assert without(said, [PROMPT]) == left


def test_a_short_prompt_is_hidden_as_a_whole():
    assert without("got CANARY-1, no", ["CANARY-1"]) == "got ***, no"


def test_a_huge_prompt_is_looked_for_at_both_ends():
    prompt = "the very first words here" + "x" * 10_000_000 + "and the very last ones"
    assert without("'the very first words'", [prompt]) == "'***'"
    assert without("'the very last ones'", [prompt]) == "'***'"
