import threading

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.balance import Balance, Usage
from routers.decision import Prediction
from routers.transforms import Context, transform

NAMES = ("a", "b", "c", "d")


def context(scores, available=None):
    shape = np.shape(scores)
    empty = np.zeros(shape)
    prediction = Prediction(
        experts=NAMES[: shape[1]], quality=empty, error=empty, cost=empty, utility=empty
    )
    shut = np.ones(shape, dtype=bool) if available is None else available
    return Context(x=np.zeros((shape[0], 2)), prediction=prediction, available=shut)


# -- counting -----------------------------------------------------------------------------------


def test_training_counts_exactly_and_reset_forgets():
    usage = Usage()
    for counts in ({"a": 3}, {"a": 1, "b": 4}):
        usage.add(counts)
    assert usage.counts(NAMES).tolist() == [4, 4, 0, 0]
    assert usage.share(NAMES).tolist() == [0.5, 0.5, 0, 0]
    usage.reset()
    assert usage.share(NAMES).tolist() == [0.25] * 4


def test_after_a_half_life_a_decision_counts_half():
    usage = Usage(half_life=10)
    usage.add({"a": 1})
    for _ in range(10):
        usage.add({"b": 1})
    assert usage.counts(["a"])[0] == pytest.approx(0.5)
    for _ in range(300):
        usage.add({"b": 1})
    # The window holds 1 + 1/2^(1/10) + 1/2^(2/10) + ... decisions.
    assert usage.counts(["b"])[0] == pytest.approx(1 / (1 - 0.5**0.1), rel=1e-6)


def test_leaving_an_expert_out_keeps_the_others_shares_in_proportion():
    usage = Usage()
    usage.add({"a": 1, "b": 3, "c": 6})
    assert usage.share(["a", "b"]).tolist() == [0.25, 0.75]


def test_no_decision_of_any_thread_is_lost():
    usage = Usage()

    def ask():
        for _ in range(2000):
            usage.add({"a": 1, "b": 0.5})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert usage.counts(["a", "b"]).tolist() == [8000, 4000]


@pytest.mark.parametrize("half_life", [0, -1, np.inf, np.nan])
def test_a_half_life_is_a_number_of_decisions(half_life):
    with pytest.raises(OptionError, match="half_life: "):
        Usage(half_life=half_life)


# -- serving ------------------------------------------------------------------------------------


def test_weight_0_changes_nothing():
    usage = Usage()
    usage.add({"a": 100})
    scores = np.array([[0.9, 0.8, -np.inf, 0.1]])
    assert Balance(weight=0, usage=usage)(scores, context(scores)) is scores


def test_only_experts_above_their_share_are_lowered_by_the_excess():
    usage = Usage()
    usage.add({"a": 79, "b": 9, "c": 8})
    scores = np.array([[0.9, 0.8, -np.inf, 0.1]])
    lowered = Balance(weight=0.5, usage=usage)(scores, context(scores))
    assert lowered.tolist() == [[pytest.approx(0.9 - 0.5 * 0.55), 0.8, -np.inf, 0.1]]


def test_the_first_decisions_change_little():
    usage = Usage()
    usage.add({"a": 1})
    scores = np.zeros((1, 4))
    lowered = Balance(weight=1, usage=usage)(scores, context(scores))
    assert lowered[0, 0] == pytest.approx(-(2 / 5 - 1 / 4))


def test_traffic_spreads_over_equals_and_stays_where_one_expert_is_much_better():
    for lead, most in ((0.05, 0.45), (0.5, 1.0)):
        usage = Usage(half_life=100)
        balance = Balance(weight=0.3, usage=usage)
        scores = np.array([[0.5 + lead, 0.5, 0.49, 0.48]])
        asked = []
        for _ in range(500):
            asked.append(NAMES[int(balance(scores, context(scores)).argmax())])
            usage.add({asked[-1]: 1})
        assert asked[100:].count("a") / 400 == pytest.approx(most, abs=0.1)


def test_the_note_names_both_experts():
    usage = Usage(half_life=100)
    usage.add({"a": 50})
    scores = np.array([[0.52, 0.5]])
    balance = Balance(weight=0.3, usage=usage)
    _, notes = transform(scores, context(scores), [balance])
    assert notes == ["a has had more than its share lately: b to spread the traffic"]
    _, notes = transform(scores + np.array([0.5, 0]), context(scores), [balance])
    assert notes == []


def test_a_negative_weight_is_refused():
    with pytest.raises(OptionError, match="balance: -1 is not a number of at least 0"):
        Balance(weight=-1, usage=Usage())
