import math

import numpy as np
import pytest
from scipy.stats import chi2

from experts_registry.errors import OptionError
from routers.data import RoutingDataset
from routers.drift import DriftMonitor, Rate, drift_p_value, reference_rates

CELL = ("math", "small")
LONG = 1_000_000


def alarms(grades, before, **settings):
    monitor = DriftMonitor({CELL: before}, **settings)
    return [a for q in grades if (a := monitor.observe(*CELL, float(q)))]


def share_alarmed(skill, n, *, outcomes=LONG, was=None, runs=500, **settings):
    """Return how often a stream of n grades raises an alarm against a rate counted on outcomes."""
    rng = np.random.default_rng(0)
    was = skill if was is None else was
    raised = 0
    for _ in range(runs):
        before = Rate(float(rng.binomial(outcomes, was)), outcomes)
        raised += bool(alarms(rng.random(n) < skill, before, **settings))
    return raised / runs


@pytest.mark.parametrize("skill", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("outcomes", [30, LONG])
def test_false_alarms_are_few_within_200_grades(skill, outcomes):
    assert share_alarmed(skill, 200, outcomes=outcomes) <= 0.045  # 3 % and two errors of 500 runs


def test_the_published_settings_raise_an_alarm_in_almost_every_unchanged_cell():
    assert share_alarmed(0.7, 200, window=20, threshold=0.2, runs=200) > 0.95


def test_a_fall_from_0_7_to_0_4_is_noticed_within_one_window():
    assert share_alarmed(0.4, 50, was=0.7) >= 0.8
    assert share_alarmed(0.4, 50, was=0.7, outcomes=500) >= 0.8


def test_with_100_outcomes_two_windows_are_needed():
    assert share_alarmed(0.4, 100, was=0.7, outcomes=100) >= 0.8


def test_with_a_long_reference_the_ratio_is_the_published_one():
    s, w, p0 = 21, 50, 0.6
    p = s / w
    ratio = 2 * (s * math.log(p / p0) + (w - s) * math.log((1 - p) / (1 - p0)))
    ours = drift_p_value(Rate(p0 * 1e9, 1e9), Rate(s, w))
    assert ours == pytest.approx(chi2.sf(ratio, 1), rel=1e-3)


@pytest.mark.parametrize(
    ("before", "now"),
    [(Rate(0, 0), Rate(3, 50)), (Rate(0, 9), Rate(0, 50)), (Rate(9, 9), Rate(50, 50))],
)
def test_no_reference_and_equal_extremes_are_no_evidence(before, now):
    assert drift_p_value(before, now) == 1


def test_one_failure_after_a_short_perfect_record_is_no_alarm():
    assert not alarms([1] * 49 + [0], Rate(5, 5))


def test_an_alarm_makes_the_window_the_new_reference():
    grades = [1, 1, 0, 1, 1] * 20 + [0, 0, 1, 0, 0] * 60
    raised = alarms(grades, Rate(800, 1000))
    assert raised[0].is_worse
    assert raised[0].before == pytest.approx(0.8)
    assert 100 < raised[0].observation <= 150
    assert len(raised) <= 3  # it settles at the new rate


def test_an_expert_that_got_better_is_told_as_such():
    raised = alarms([1] * 50, Rate(300, 1000))
    assert [(a.is_worse, a.now) for a in raised] == [(False, 1.0)]


def test_cells_do_not_disturb_each_other():
    monitor = DriftMonitor({CELL: Rate(700, 1000), ("law", "small"): Rate(700, 1000)})
    raised = [monitor.observe("law", "small", 0.0) for _ in range(50)]
    assert raised[-1] is not None
    assert raised[-1].category == "law"
    assert not any(monitor.observe(*CELL, q) for q in [1, 1, 0, 1, 0, 1, 1, 1, 0, 1] * 8)
    assert monitor.observations == {CELL: 80, ("law", "small"): 50}


def test_a_cell_without_outcomes_is_not_judged():
    monitor = DriftMonitor({})
    assert not any(monitor.observe(*CELL, 0.0) for _ in range(200))


def test_reference_rates_count_what_is_there():
    data = RoutingDataset(
        queries=("a", "b", "c"),
        experts=("x", "y"),
        quality=np.array([[1, np.nan], [0.5, np.nan], [0, 1]]),
        category=("math", "math", ""),
    )
    assert reference_rates(data) == {
        ("", "x"): Rate(1.5, 3),
        ("", "y"): Rate(1, 1),
        ("math", "x"): Rate(1.5, 2),
    }


@pytest.mark.parametrize("wrong", [{"window": 1}, {"threshold": 0}, {"threshold": 1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        DriftMonitor({}, **wrong)
