import threading

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.balance import (
    Balance,
    Usage,
    balance_gradient,
    balance_loss,
    cv_feedback,
    entropy,
    entropy_gradient,
)
from routers.decision import Prediction
from routers.transforms import Context, transform

NAMES = ("a", "b", "c", "d")


def softmax(scores):
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def selections(probability):
    """Return how often each expert is the best of a row, by name."""
    counts = np.bincount(probability.argmax(axis=1), minlength=probability.shape[1])
    return dict(zip(NAMES, counts.tolist(), strict=True))


def specialised_batches():
    """Four micro-batches of one domain each; its expert has 0.97 of the probability."""
    return [np.tile(np.where(np.arange(4) == g, 0.97, 0.01), (8, 1)) for g in range(4)]


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


# -- losses -------------------------------------------------------------------------------------


def test_specialised_experts_are_punished_per_batch_and_not_over_the_corpus():
    batches, usage, micro = specialised_batches(), Usage(), []
    for batch in batches:
        own = Usage()
        own.add(selections(batch))
        usage.add(selections(batch))
        micro.append(balance_loss(batch, own.share(NAMES)))
    assert np.mean(micro) == pytest.approx(3.88)
    together = np.mean([balance_loss(batch, usage.share(NAMES)) for batch in batches])
    assert together == pytest.approx(1.00)


def test_one_worker_and_four_have_the_same_loss_and_gradient():
    batch = softmax(np.random.default_rng(0).normal(size=(32, 4)))
    parts, usage, alone = np.split(batch, 4), Usage(), Usage()
    alone.add(selections(batch))
    for part in parts:
        usage.add(selections(part))
    one, four = alone.share(NAMES), usage.share(NAMES)
    assert one.tolist() == four.tolist()
    assert np.mean([balance_loss(p, four) for p in parts]) == pytest.approx(
        balance_loss(batch, one), rel=1e-12
    )
    gradients = np.vstack([balance_gradient(p, four) / 4 for p in parts])
    np.testing.assert_allclose(gradients, balance_gradient(batch, one), rtol=1e-12)


@pytest.mark.parametrize("nulls", [0, 2])
def test_gradients_are_those_of_finite_differences(nulls):
    rng = np.random.default_rng(1)
    scores, share = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4))
    pairs = [
        (
            lambda s: balance_loss(softmax(s), share, nulls=nulls),
            balance_gradient(softmax(scores), share, nulls=nulls),
        ),
        (lambda s: entropy(softmax(s)), entropy_gradient(softmax(scores))),
    ]
    for loss, gradient in pairs:
        for i, j in np.ndindex(scores.shape):
            step = np.zeros_like(scores)
            step[i, j] = 1e-6
            slope = (loss(scores + step) - loss(scores - step)) / 2e-6
            assert gradient[i, j] == pytest.approx(slope, abs=1e-8)


def test_the_extremes_are_finite_and_known():
    certain = np.eye(4)
    assert entropy(certain) == 0
    assert not entropy_gradient(certain).any()
    assert entropy(np.full((3, 4), 0.25)) == pytest.approx(np.log(4))
    assert not balance_gradient(certain, np.full(4, 0.25)).any()
    assert balance_loss(np.tile(certain[0], (3, 1)), certain[0]) == 4


def test_nulls_are_held_to_their_sum_not_each_to_its_share():
    probability = softmax(np.random.default_rng(2).normal(size=(6, 4)))
    uneven = balance_loss(probability, np.array([0.3, 0.2, 0.5, 0.0]), nulls=2)
    even = balance_loss(probability, np.array([0.3, 0.2, 0.25, 0.25]))
    assert uneven == pytest.approx(even)
    assert uneven != pytest.approx(balance_loss(probability, np.array([0.3, 0.2, 0.5, 0.0])))


@pytest.mark.parametrize(("sign", "is_sharper"), [(1.0, True), (-1.0, False)])
def test_the_sign_of_the_entropy_decides_between_sharp_and_flat(sign, is_sharper):
    rng = np.random.default_rng(3)
    domain = np.repeat(np.arange(4), 50)
    x = np.eye(4)[domain] + 0.1 * rng.normal(size=(200, 4))
    weight = np.eye(4) + 0.1 * rng.normal(size=(4, 4))  # specialised a little
    before = entropy(softmax(x @ weight))
    for _ in range(300):
        p = softmax(x @ weight)
        share = np.bincount(p.argmax(axis=1), minlength=4) / 200
        weight -= 2 * x.T @ (balance_gradient(p, share) + sign * entropy_gradient(p))
    p = softmax(x @ weight)
    usage = p.mean(axis=0)
    assert -(usage * np.log(usage)).sum() > 0.98 * np.log(4)
    assert (entropy(p) < 0.3 * before) if is_sharper else (entropy(p) > before)


def test_variation_of_importance_is_as_by_hand():
    weights = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])  # importance 2.5 and 0.5
    assert cv_feedback(weights) == pytest.approx(1.0 / 1.5**2)
    assert cv_feedback(weights[:, :1]) == 0
    assert cv_feedback(np.full((3, 4), 0.25)) == 0
    assert cv_feedback(np.zeros((3, 4))) == 0


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
