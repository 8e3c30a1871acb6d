import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from routers.ridge import fit_leverage, fit_ridge, leverage, ridge_path

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(200, 12))
Y = Z @ RNG.normal(size=(12, 4)) + RNG.normal(size=(200, 4)) + 3
HOLES = np.where(RNG.random(Y.shape) < 0.3, np.nan, Y)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 50.0])
def test_it_is_scikit_learns_ridge(alpha):
    found, reference = fit_ridge(Z, Y, alpha), Reference(alpha=alpha).fit(Z, Y)
    assert found.weight == pytest.approx(reference.coef_.T, abs=1e-8)
    assert found.intercept == pytest.approx(reference.intercept_, abs=1e-8)
    assert found(Z) == pytest.approx(reference.predict(Z), abs=1e-8)


def test_missing_cells_leave_each_column_to_its_own_rows():
    found = fit_ridge(Z, HOLES, 2.0)
    for e in range(4):
        rows = ~np.isnan(HOLES[:, e])
        reference = Reference(alpha=2.0).fit(Z[rows], HOLES[rows, e])
        assert found.weight[:, e] == pytest.approx(reference.coef_, abs=1e-8)
        assert found.intercept[e] == pytest.approx(reference.intercept_, abs=1e-8)


def test_weights_count_rows_as_scikit_learn_does_also_with_missing_cells():
    weight = RNG.random(200) * 3
    found = fit_ridge(Z, HOLES, 2.0, weight=weight)
    rows = ~np.isnan(HOLES[:, 1])
    reference = Reference(alpha=2.0).fit(Z[rows], HOLES[rows, 1], sample_weight=weight[rows])
    assert found.weight[:, 1] == pytest.approx(reference.coef_, abs=1e-8)


def test_single_precision_is_close_enough_where_the_penalty_is_felt():
    exact, quick = fit_ridge(Z, Y, 3.0), fit_ridge(Z.astype(np.float32), Y, 3.0)
    assert quick.weight == pytest.approx(exact.weight, abs=1e-4)
    assert quick.intercept == pytest.approx(exact.intercept, abs=1e-4)


def test_a_path_is_the_fits_one_by_one():
    for alpha, ridge in zip([1.0, 9.0], ridge_path(Z, HOLES, [1.0, 9.0]), strict=True):
        assert ridge.weight == pytest.approx(fit_ridge(Z, HOLES, alpha).weight)


def test_a_column_without_any_outcome_predicts_nothing():
    y = np.where(np.arange(4) == 2, np.nan, Y)
    found = fit_ridge(Z, y, 1.0)
    assert not found.weight[:, 2].any()
    assert found.intercept[2] == 0
    assert found.weight[:, 0] == pytest.approx(fit_ridge(Z, Y, 1.0).weight[:, 0])


def test_one_row_or_more_columns_than_rows_can_be_fitted():
    assert fit_ridge(Z[:1], Y[:1], 1.0)(Z[:1]) == pytest.approx(Y[:1])
    assert np.isfinite(fit_ridge(Z[:3], Y[:3], 1e-6).weight).all()


@pytest.mark.parametrize("alpha", [1e-6, 1.0, 100.0])
def test_leverage_is_the_quadratic_form(alpha):
    z = Z - Z.mean(axis=0)
    exact = np.einsum("nd,dk,nk->n", z, np.linalg.inv(z.T @ z + alpha * np.eye(12)), z)
    assert leverage(Z, fit_leverage(Z, alpha))[:, 0] == pytest.approx(exact)


def test_leverage_in_many_dimensions_is_next_to_the_quadratic_form():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 200)) * np.geomspace(1, 0.01, 200)
    new = rng.normal(size=(50, 200)) * np.geomspace(1, 0.01, 200) - z.mean(axis=0)
    seen = z - z.mean(axis=0)
    inverse = np.linalg.inv(seen.T @ seen + 100.0 * np.eye(200))
    exact = np.einsum("nd,dk,nk->n", new, inverse, new)
    found = leverage(new + z.mean(axis=0), fit_leverage(z, 100.0))[:, 0]
    assert found == pytest.approx(exact, rel=0.15)


def test_leverage_grows_away_from_what_was_seen_and_shrinks_with_more_rows():
    state = fit_leverage(Z, 1.0)
    assert leverage(10 * Z[:1], state) > 5 * leverage(Z[:1], state)
    assert leverage(Z, state).mean() < 0.2 * leverage(Z, fit_leverage(Z[:20], 1.0)).mean()


def test_leverage_of_fewer_rows_than_columns_is_finite():
    assert np.isfinite(leverage(Z, fit_leverage(Z[:3], 1e-6))).all()
