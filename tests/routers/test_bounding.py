import numpy as np
import pytest

from routers.bounding import bounded


def test_what_is_well_inside_is_left_alone():
    inside = np.linspace(0.05, 0.95, 50)
    assert np.array_equal(bounded(inside), inside)


def test_what_is_outside_comes_inside_in_order():
    wild = np.linspace(-0.4, 1.4, 400)
    found = bounded(wild)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (np.diff(found) > 0).all()


def test_the_bend_is_smooth():
    assert bounded(np.array([0.96]))[0] == pytest.approx(0.95 + 0.05 * (1 - np.exp(-0.2)))
    assert bounded(np.array([-0.01]))[0] == pytest.approx(0.05 * np.exp(-1.2))
