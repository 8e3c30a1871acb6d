import pytest

from composer.retries import Retries
from experts_registry.errors import (
    ExpertBusyError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)
from experts_registry.schema import Limits

DOWN = ExpertUnavailableError("down")


def retries(uniform=lambda low, high: high, **limits):
    return Retries(Limits(**limits), uniform)


def test_waits_are_drawn_below_a_bound_that_grows():
    bounds = []
    one = retries(lambda low, high: bounds.append((low, high)) or high, retries=9)
    assert [one.wait(DOWN, tries, None) for tries in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert all(low == 0 for low, _ in bounds)


def test_tries_are_counted():
    assert retries(retries=1).wait(DOWN, 1, None) is not None
    assert retries(retries=1).wait(DOWN, 2, None) is None
    assert retries(retries=0).wait(DOWN, 1, None) is None


@pytest.mark.parametrize(
    "error", [ExpertTimeoutError("t"), ExpertReplyError("r"), ExpertRequestError("q", 400)]
)
def test_what_would_take_as_long_or_fail_again_is_not_tried_again(error):
    assert retries().wait(error, 1, None) is None


def test_the_time_that_an_expert_names_is_kept():
    assert retries(lambda low, _: low).wait(ExpertBusyError("b", 3.0), 1, None) == 3.0
    assert retries().wait(ExpertBusyError("b", 3.0), 1, None) == pytest.approx(3.3)


@pytest.mark.parametrize(("asked_for", "left"), [(31.0, None), (7.0, 5.0), (7.0, 7.0)])
def test_who_asks_for_more_than_there_is_is_not_waited_for(asked_for, left):
    assert retries().wait(ExpertBusyError("b", asked_for), 1, left) is None


def test_no_wait_reaches_past_the_deadline():
    assert retries().wait(DOWN, 1, 0.4) is None
    assert retries().wait(DOWN, 1, 0.6) == 0.5


def test_further_tries_are_at_most_a_tenth_of_the_calls_in_the_long_run():
    one, tried = retries(), 0
    for _ in range(1000):
        one.earn()
        tried += one.wait(DOWN, 1, None) is not None
    assert 100 <= tried <= 110


def test_tries_that_the_expert_asked_for_are_not_paid():
    one = retries()
    assert all(one.wait(ExpertBusyError("b", 1.0), 1, None) for _ in range(50))
