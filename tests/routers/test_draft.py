from math import log

import pytest

from experts_registry.types import TokenLogprob
from routers.draft import DRAFT_TOKENS, draft_signals


def token(text: str, p: float, *others: float) -> TokenLogprob:
    return TokenLogprob(text, log(p), top=tuple(TokenLogprob("x", log(o)) for o in others))


def test_signals_of_two_tokens_by_hand():
    found = draft_signals([token(" Paris", 0.5, 0.5, 0.25, 0.25), token(".", 0.25, 0.25, 0.25)])
    assert found["tokens"] == 2
    assert found["mean_logprob"] == pytest.approx((log(0.5) + log(0.25)) / 2)
    assert found["min_logprob"] == pytest.approx(log(0.5))  # a full stop says nothing
    assert found["max_entropy"] == pytest.approx(0.5 * log(2) + 0.5 * log(4))
    assert found["mean_entropy"] == pytest.approx((0.75 * log(4) + log(2)) / 2)


def test_only_the_beginning_counts():
    sure, unsure = [token("a", 0.9)] * DRAFT_TOKENS, [token("b", 0.1)]
    assert draft_signals(sure + unsure) == draft_signals(sure)


def test_nothing_told_is_no_signal():
    assert draft_signals(None) is None
    assert draft_signals(()) is None
