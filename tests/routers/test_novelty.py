import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.clustering import kmeans
from routers.novelty import closeness, energy, held_out_closeness, novelty_threshold


def domains(n, k=5, *, d=32, seed=0):
    """Queries around k directions; the directions are the same for every seed."""
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(d, k)))[0].T
    rng = np.random.default_rng(seed)
    label = rng.integers(k, size=n)
    return directions[label] + 0.12 * rng.normal(size=(n, d)), label


def centres(x, label):
    return np.stack([x[label == c].mean(axis=0) for c in np.unique(label)])


def test_closeness_is_the_cosine_to_the_nearest_centre_whatever_the_lengths():
    x = np.array([[2.0, 0.0], [3.0, 4.0]])
    assert closeness(x, np.array([[5.0, 0.0], [0.0, -1.0]])).tolist() == pytest.approx([1, 0.6])


def test_held_out_closeness_is_that_of_centres_made_without_the_query():
    x, label = domains(60)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    held = held_out_closeness(x, centres(x, label))
    for i in range(0, 60, 7):
        others = np.delete(np.arange(60), i)
        assert held[i] == pytest.approx(
            closeness(x[i : i + 1], centres(x[others], label[others]))[0], abs=1e-6
        )
    assert (held <= closeness(x, centres(x, label)) + 1e-9).all()


def test_a_query_that_is_alone_in_its_cluster_is_close_to_the_others_or_to_nothing():
    x = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    held = held_out_closeness(x, x[:2])
    assert held.tolist() == pytest.approx([0.6, 1, 1])
    assert held_out_closeness(x[:1], x[:1]).tolist() == [-1]


@pytest.mark.parametrize("left_out", range(5))
def test_a_domain_left_out_is_unknown_and_familiar_queries_seldom_are(left_out):
    x, label = domains(1000)
    seen = label != left_out
    known = centres(x[seen], label[seen])
    floor = novelty_threshold(held_out_closeness(x[seen], known), alpha=0.05)
    fresh, of = domains(4000, seed=1)
    is_unknown = closeness(fresh, known) < floor
    assert is_unknown[of == left_out].mean() > 0.95
    familiar = is_unknown[of != left_out]
    # Three standard deviations of the threshold's own draw and of the test.
    assert familiar.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 * (1 / seen.sum() + 1 / len(familiar)))


def test_queries_left_out_at_random_are_not_unknown():
    x, _ = domains(1500)
    seen = np.random.default_rng(2).random(1500) < 0.7
    known, _ = kmeans(x[seen], 5)
    floor = novelty_threshold(held_out_closeness(x[seen], known))
    assert 0.02 < (closeness(x[~seen], known) < floor).mean() < 0.09


def test_both_signals_together_take_no_more_for_unknown_than_either():
    rng = np.random.default_rng(3)
    x, label = domains(1000)
    known, scores = centres(x, label), rng.random((1000, 4))
    floor = novelty_threshold(held_out_closeness(x, known))
    ceiling = novelty_threshold(-energy(scores, temperature=0.1))
    fresh = domains(4000, seed=1)[0]
    far = closeness(fresh, known) < floor
    odd = -energy(rng.random((4000, 4)), temperature=0.1) < ceiling
    assert 0.02 < odd.mean() < 0.08
    assert (far & odd).mean() <= min(far.mean(), odd.mean()) < 0.08


def test_energy_is_high_where_every_score_is_low():
    scores = np.array([[0.9, 0.1], [0.1, 0.1], [-np.inf, 0.1]])
    found = energy(scores, temperature=0.5)
    assert found == pytest.approx(-np.log(np.exp(scores / 0.5).sum(axis=1)))
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("n", [19, 20, 200])
def test_at_most_alpha_of_further_values_are_below_the_threshold(n):
    rng = np.random.default_rng(n)
    below = [
        (rng.random(50) < novelty_threshold(rng.random(n), alpha=0.05)).mean() for _ in range(2000)
    ]
    assert 0.03 < np.mean(below) < 0.05 + 0.004


def test_too_few_values_make_nothing_unknown():
    assert novelty_threshold(np.arange(18.0), alpha=0.05) == -np.inf
    assert novelty_threshold(np.arange(19.0), alpha=0.05) == 0
    assert novelty_threshold(np.arange(5.0), alpha=0) == -np.inf


def test_alpha_is_a_share():
    with pytest.raises(OptionError, match=r"alpha: 5 is not a share; use"):
        novelty_threshold(np.arange(9.0), alpha=5)
