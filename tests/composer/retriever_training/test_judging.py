import numpy as np
import pytest

from composer.retriever_training.judging import cross_fitted, optimism


def test_the_best_of_many_evaluations_by_chance_owes_its_lead_to_optimism():
    lead, owed = [], []
    for seed in range(40):
        history = np.random.default_rng(seed).random((20, 60))
        lead.append(float((history.mean(axis=1).max()) - history[0].mean()))
        owed.append(optimism(history, seed))
    assert np.mean(owed) == pytest.approx(np.mean(lead), abs=0.02)


def test_a_real_gain_owes_nothing():
    history = np.stack([np.full(60, 0.2), np.full(60, 0.6), np.full(60, 0.5)])
    assert optimism(history, 0) == 0
    assert cross_fitted(history, 0) == pytest.approx(np.full(60, 0.4))
