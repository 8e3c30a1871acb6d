import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from routers.logistic import fit_logistic, fit_softmax

RNG = np.random.default_rng(1)
Z = RNG.normal(size=(300, 8))
W = RNG.normal(size=(8, 3))
P = 1 / (1 + np.exp(-(Z @ W + 0.5)))
Y = (RNG.random(P.shape) < P).astype(float)
ALPHA = 1.5


def reference(z, y, weight=None):
    return LogisticRegression(C=1 / ALPHA, tol=1e-9, max_iter=10_000).fit(z, y, weight)


def test_it_is_scikit_learns_logistic_regression():
    found = fit_logistic(Z, Y, ALPHA, steps=2000)
    for e in range(3):
        known = reference(Z, Y[:, e])
        assert found.weight[:, e] == pytest.approx(known.coef_[0], abs=2e-3)
        assert found.intercept[e] == pytest.approx(known.intercept_[0], abs=2e-3)


def test_missing_cells_leave_each_column_to_its_own_rows():
    holes = np.where(RNG.random(Y.shape) < 0.4, np.nan, Y)
    found = fit_logistic(Z, holes, ALPHA, steps=2000)
    for e in range(3):
        rows = ~np.isnan(holes[:, e])
        known = reference(Z[rows], Y[rows, e])
        assert found.weight[:, e] == pytest.approx(known.coef_[0], abs=2e-3)


def test_a_fraction_counts_as_that_share_of_a_success():
    twice = np.vstack([Z, Z])
    split = np.concatenate([np.ones(300), np.zeros(300)])
    weight = np.concatenate([P[:, 0], 1 - P[:, 0]])
    known = reference(twice, split, weight)
    found = fit_logistic(Z, P[:, :1], ALPHA, steps=2000)
    assert found.weight[:, 0] == pytest.approx(known.coef_[0], abs=2e-3)


def test_the_usual_number_of_steps_is_enough_for_the_probabilities():
    few, many = (fit_logistic(Z, Y, ALPHA, steps=n) for n in (60, 2000))
    gap = 1 / (1 + np.exp(-few(Z))) - 1 / (1 + np.exp(-many(Z)))
    assert np.abs(gap).max() < 0.01


def test_columns_that_always_or_never_succeed_or_were_never_seen_stay_finite():
    y = np.stack([np.ones(300), np.zeros(300), np.full(300, np.nan)], axis=1)
    p = 1 / (1 + np.exp(-fit_logistic(Z, y, ALPHA)(Z)))
    assert p[:, 0].min() > 0.9
    assert p[:, 1].max() < 0.1
    assert p[:, 2] == pytest.approx(0.5)


LABEL = (Z @ RNG.normal(size=(8, 4)) + RNG.gumbel(size=(300, 4))).argmax(axis=1)


def probabilities(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weight", [None, RNG.random(300) * 2], ids=["alike", "weighted"])
def test_the_softmax_is_scikit_learns_too(weight):
    found = fit_softmax(Z, np.eye(4)[LABEL], ALPHA, weight=weight, steps=2000)
    known = reference(Z, LABEL, weight).predict_proba(Z)
    assert probabilities(found(Z)) == pytest.approx(known, abs=2e-3)


def test_a_softmax_of_huge_inputs_stays_finite():
    found = fit_softmax(1e3 * Z, np.eye(4)[LABEL], ALPHA)
    assert np.isfinite(found.weight).all()
