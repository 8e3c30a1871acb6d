from dataclasses import dataclass

import pytest

from composer.breaker import Breaker


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def fail(breaker, times=5):
    for _ in range(times):
        assert breaker.enter() == 0
        breaker.failed()


def test_it_opens_after_five_failures_and_says_for_how_long(breaker):
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.enter() == pytest.approx(5)


def test_failures_among_more_successes_do_not_open_it(breaker):
    for _ in range(8):
        breaker.succeeded()
        breaker.succeeded()
        breaker.failed()
    assert breaker.state == "closed"


def test_failures_of_long_ago_do_not_count(breaker, clock):
    fail(breaker, 4)
    clock.now += 61
    fail(breaker, 1)
    assert breaker.state == "closed"


def test_one_probe_at_a_time_decides(breaker, clock):
    fail(breaker)
    clock.now += 5.1
    assert breaker.state == "half-open"
    assert breaker.enter() == 0
    assert breaker.enter() > 0
    breaker.succeeded()
    assert breaker.state == "closed"
    assert [breaker.enter() for _ in range(3)] == [0, 0, 0]


def test_probes_that_fail_double_the_pause_up_to_a_minute(breaker, clock):
    fail(breaker)
    pauses = []
    for _ in range(6):
        clock.now += breaker.refuses_for
        assert breaker.enter() == 0
        breaker.failed()
        pauses.append(round(breaker.refuses_for))
    assert pauses == [10, 20, 40, 60, 60, 60]


def test_a_probe_that_is_given_up_leaves_room_for_another(breaker, clock):
    fail(breaker)
    clock.now += 6
    assert breaker.enter() == 0
    breaker.abandoned()
    assert breaker.enter() == 0


def test_calls_begun_before_it_opened_do_not_close_it(breaker):
    assert breaker.enter() == 0
    fail(breaker)
    breaker.succeeded()
    assert breaker.state == "open"


def test_an_expert_that_asks_for_a_pause_gets_it_and_needs_no_probe(breaker, clock):
    breaker.rest(7)
    assert breaker.is_resting
    assert breaker.enter() == pytest.approx(7)
    clock.now += 7.1
    assert breaker.state == "closed"
    assert [breaker.enter() for _ in range(3)] == [0, 0, 0]


def test_nobody_can_ask_for_more_than_a_minute(breaker):
    breaker.rest(86_400)
    assert breaker.refuses_for == pytest.approx(60)
