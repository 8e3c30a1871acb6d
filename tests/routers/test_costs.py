import numpy as np
import pytest

from routers.costs import fit_cost, predict_cost

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(2000, 6)) / np.sqrt(6)
SLOPE = RNG.normal(size=(6, 2)) * 1.5
EXPECTED = np.exp(Z @ SLOPE - 7)  # of a log-normal: USD a query


def mean(cost):
    with np.errstate(invalid="ignore"):
        return np.nansum(cost, axis=0) / (~np.isnan(cost)).sum(axis=0)


def predicted(cost, z=Z):
    return predict_cost(z, fit_cost(Z, cost, mean(cost)))


def test_a_planted_log_linear_cost_is_recovered():
    cost = EXPECTED * np.exp(RNG.normal(size=(2000, 2)) * 0.5 - 0.125)
    found = predicted(cost)
    assert np.corrcoef(np.log(found[:, 0]), np.log(EXPECTED[:, 0]))[0, 1] > 0.98
    assert np.abs(np.log(found / EXPECTED)).mean() < 0.1
    assert found.mean(axis=0) == pytest.approx(cost.mean(axis=0), rel=0.05)


def test_a_shuffled_cost_is_predicted_by_its_mean():
    cost = EXPECTED[RNG.permutation(2000)]
    assert predicted(cost).std() < 0.25 * cost.std()


def test_a_constant_cost_stays_what_it_is():
    cost = np.tile([0.25, 3.0], (2000, 1))
    assert predicted(cost) == pytest.approx(cost)


def test_what_is_free_stays_free_and_what_is_unknown_unknown():
    cost = np.tile([0.0, np.nan], (2000, 1))
    found = predicted(cost)
    assert (found[:, 0] == 0).all()
    assert np.isnan(found[:, 1]).all()


def test_free_queries_among_priced_ones_lower_the_expected_cost():
    cost = EXPECTED.copy()
    cost[::2] = 0  # every second one came from a cache
    assert predicted(cost).mean(axis=0) == pytest.approx(cost.mean(axis=0), rel=0.05)


def test_missing_cells_and_few_outcomes_are_accepted():
    cost = EXPECTED.copy()
    cost[::3, 0] = np.nan
    cost[20:, 1] = np.nan  # twenty outcomes say no more than their mean
    found = predicted(cost)
    assert np.isfinite(found).all()
    assert found[:, 1] == pytest.approx(np.full(2000, np.nanmean(cost[:, 1])))
    assert found[:, 0].std() > 0


def test_no_prediction_leaves_what_was_seen():
    found = predicted(EXPECTED, 1e3 * Z)
    assert (found <= EXPECTED.max(axis=0) * (1 + 1e-9)).all()
    assert (found >= EXPECTED.min(axis=0) * (1 - 1e-9)).all()


def test_huge_and_tiny_units_give_the_same_shares():
    cost = EXPECTED * np.exp(RNG.normal(size=(2000, 2)) * 0.5)
    assert predicted(1e9 * cost) / 1e9 == pytest.approx(predicted(cost), rel=1e-6)
