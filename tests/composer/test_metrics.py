import numpy as np
import pytest
from scipy.stats import binomtest

from composer.metrics import (
    apgr,
    brier,
    cost_save,
    cpt,
    hull,
    hull_area,
    hypervolume,
    on_front,
    pareto_distance,
    reliability,
)
from composer.statistics import (
    bootstrap,
    interval,
    macro_weights,
    mcnemar,
    over_refits,
    paired_interval,
    wilson,
)

WEAK, STRONG = (1.0, 0.4), (5.0, 0.8)


def area(cost, quality, low, high):
    return hull_area(
        np.array([cost], float), np.array([quality], float), np.array([low]), np.array([high])
    )[0]


def test_the_hull_is_concave_and_never_falls():
    cost, quality = np.array([1, 2, 3, 4, 5.0]), np.array([0.4, 0.7, 0.6, 0.8, 0.5])
    assert hull(cost, quality, low=1, high=5) == ((1, 0.4), (2, 0.7), (4, 0.8), (5, 0.8))


def test_the_area_of_points_by_hand():
    # (0.4 + 0.7) / 2 * 1 + (0.7 + 0.8) / 2 * 2 + 0.8 * 1 = 2.85, over a width of 4
    assert area([1, 2, 3, 4, 5], [0.4, 0.7, 0.6, 0.8, 0.5], 1, 5) == pytest.approx(2.85 / 4)


def test_the_hull_is_cut_at_the_dearest_cost():
    assert hull(np.array([1, 9.0]), np.array([0.2, 1.0]), low=1, high=5)[-1] == (
        5,
        pytest.approx(0.6),
    )
    assert area([1, 9], [0.2, 1.0], 1, 5) == pytest.approx(0.4)


def test_a_point_below_the_cheapest_cost_counts_as_one_of_that_cost():
    assert area([1, 0.5], [0.2, 0.6], 1, 5) == pytest.approx(0.6)


def test_the_areas_of_many_hulls_are_those_of_each():
    rng = np.random.default_rng(0)
    cost, quality = rng.random((50, 12)), rng.random((50, 12))
    cost[:, 0] = 0
    low, high = np.zeros(50), rng.uniform(0.5, 1, 50)
    found = hull_area(cost, quality, low, high)
    for i in range(50):
        x, y = np.array(hull(cost[i], quality[i], low=0, high=high[i])).T
        assert found[i] == pytest.approx(np.trapezoid(y, x) / high[i])


def test_a_random_mixture_recovers_half_of_the_gap():
    mixture = hull(np.array([1, 2, 3, 5.0]), np.array([0.4, 0.5, 0.6, 0.8]), low=1, high=5)
    assert apgr(mixture, WEAK, STRONG) == pytest.approx(0.5)
    assert cpt(mixture, WEAK, STRONG, 0.5) == pytest.approx(0.5)
    assert cpt(mixture, WEAK, STRONG, 0.8) == pytest.approx(0.8)


def test_a_perfect_router_recovers_everything_at_no_cost():
    at_once = hull(np.array([1.0, 1.0]), np.array([0.4, 0.8]), low=1, high=5)
    assert apgr(at_once, WEAK, STRONG) == pytest.approx(1)
    assert cpt(at_once, WEAK, STRONG, 0.8) == 0


def test_the_gap_is_undefined_where_the_strong_is_not_better_or_never_reached():
    flat = hull(np.array([1.0]), np.array([0.4]), low=1, high=5)
    assert apgr(flat, WEAK, (5.0, 0.4)) is None
    assert apgr(flat, WEAK, (1.0, 0.8)) is None
    assert cpt(flat, WEAK, STRONG, 0.5) is None


def test_the_cheapest_point_that_is_good_enough_saves_most():
    cost, quality = np.array([1, 2, 4.0]), np.array([0.5, 0.8, 0.9])
    assert cost_save(cost, quality, (4.0, 0.8)) == pytest.approx(0.5)
    assert cost_save(cost, quality, (4.0, 0.95)) is None


def test_the_hypervolume_by_hand():
    # From 1 to 2 nothing better than 0.4, then 0.7 up to 4, then 0.8.
    cost, quality = np.array([4, 1, 2, 3.0]), np.array([0.8, 0.4, 0.7, 0.6])
    found = hypervolume(cost, quality, 1, 5)
    assert found == pytest.approx((0.4 * 1 + 0.7 * 2 + 0.8 * 1) / 4)


def test_the_front_holds_what_nothing_dominates():
    cost, quality = np.array([1, 2, 2, 3, 3.0]), np.array([0.4, 0.7, 0.6, 0.7, 0.9])
    assert on_front(cost, quality).tolist() == [True, True, False, False, True]


def test_the_distance_to_the_front_counts_only_what_lacks():
    front = np.array([[0.0, 0.4], [0.5, 0.8]])
    assert pareto_distance(front, front) == 0
    assert pareto_distance(np.array([[0.5, 0.5]]), front) == pytest.approx(0.3)
    assert pareto_distance(np.array([[0.8, 0.4]]), front) == pytest.approx(0.5)
    assert pareto_distance(np.array([[0.1, 0.9]]), front) == 0


def test_calibrated_predictions_have_hardly_any_calibration_error():
    rng = np.random.default_rng(0)
    true = rng.random(60_000)
    outcome = (rng.random(60_000) < true).astype(float)
    for predicted, error in ((true, 0.0), (true / 2, 0.25)):
        p, o, size = reliability(predicted, outcome)
        assert len(size) == 15
        assert size.min() == pytest.approx(size.max(), rel=0.01)
        assert size @ np.abs(p - o) / size.sum() == pytest.approx(error, abs=0.01)


def test_equal_predictions_share_a_bin():
    p, o, size = reliability(np.full(100, 0.3), np.array([0.0, 1] * 50))
    assert (p.tolist(), o.tolist(), size.tolist()) == ([pytest.approx(0.3)], [0.5], [100])


def test_the_brier_score_of_a_coin_is_a_quarter():
    assert brier(np.full(4, 0.5), np.array([0, 1, 0, 1])) == 0.25


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (8, 2), (30, 31), (400, 330)])
def test_mcnemar_agrees_with_the_binomial_test(wins, losses):
    a = np.array([1] * wins + [0] * losses + [1, 0, 1], float)
    b = np.array([0] * wins + [1] * losses + [1, 0, 1], float)
    found = mcnemar(a, b)
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert (found.wins, found.losses) == (wins, losses)
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_every_category_weighs_the_same_in_every_resample():
    labels = np.array([0] * 90 + [1] * 10)
    values = (labels == 1).astype(float)[:, None]
    assert macro_weights(labels) @ values[:, 0] == pytest.approx(0.5)
    assert bootstrap(values, labels, 50, 0) == pytest.approx(0.5)


def test_the_bootstrap_and_the_normal_interval_agree():
    rng = np.random.default_rng(1)
    difference, labels = rng.normal(0.1, 1, 500), rng.integers(0, 3, 500)
    drawn = interval(bootstrap(difference[:, None], labels, 4000, 0)[:, 0])
    normal = paired_interval(difference, labels)
    assert (drawn.low, drawn.high) == pytest.approx((normal.low, normal.high), abs=0.01)


def test_random_splits_prove_less_than_independent_ones():
    values = [0.01, 0.02, 0.03, 0.02, 0.01]
    narrow, wide = over_refits(values), over_refits(values, 0.2)
    assert narrow.value == wide.value == pytest.approx(0.018)
    width = [found.interval.high - found.interval.low for found in (narrow, wide)]
    assert width[1] / width[0] == pytest.approx(np.sqrt((1 / 5 + 0.25) / (1 / 5)))
    assert over_refits([0.5]).interval.low == -1
    torn = over_refits([0.0, 1.0]).interval
    assert (torn.low, torn.high) == (-1, 1)  # no difference of means in [0, 1] lies further out


def test_the_wilson_interval_agrees_with_scipy():
    expected = binomtest(7, 20).proportion_ci(method="wilson")
    found = wilson(7, 20)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
