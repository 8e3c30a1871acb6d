"""Heads against a planted signal, and against none."""

import numpy as np

from composer.gate_figures import ece_of
from routers.gates.heads import balanced, fit_head, sigmoid

EVERY = np.array([[0.0] * 3 + [1.0] * 3, [1.0] * 6])


def planted(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 6))
    chance = sigmoid(1.5 * z[:, 4] - 0.5)
    return z, chance, (rng.random(n) < chance).astype(float), np.arange(n) % 5


def test_a_planted_signal_is_found_and_calibrated():
    z, _, y, fold = planted(1200)
    fitted = fit_head(z, y, fold, np.ones(1200), EVERY)
    fresh, chance, outcome, _ = planted(4000, seed=1)
    said, error = fitted.head(fresh)
    assert np.corrcoef(said, chance)[0, 1] > 0.97
    assert ece_of(said, outcome) < 0.04
    assert 0 < error.mean() < 0.1
    assert ece_of(fitted.held, y) < 0.06


def test_without_a_signal_the_mean_is_said():
    z, _, y, fold = planted(300)
    fitted = fit_head(z, np.random.default_rng(2).permutation(y), fold, np.ones(300), EVERY)
    said, _ = fitted.head(planted(300, seed=1)[0])
    assert said.std() < 0.05
    assert abs(said.mean() - y.mean()) < 0.05


def test_grades_between_0_and_1_and_missing_ones_are_taken():
    z, chance, _, fold = planted(600)
    y = np.where(np.arange(600) % 3 == 0, np.nan, chance)
    said, _ = fit_head(z, y, fold, np.ones(600), EVERY).head(z)
    assert np.abs(said - chance).mean() < 0.03


def test_an_expert_that_is_always_right_leaves_nothing_to_learn():
    z, _, y, fold = planted(100)
    said, _ = fit_head(z, np.ones_like(y), fold, np.ones(100), EVERY).head(z)
    assert (said > 0.98).all()


def test_labels_count_alike():
    weight = balanced(("a", "a", "a", "b"))
    assert weight[:3].sum() == weight[3]
    assert weight.mean() == 1
