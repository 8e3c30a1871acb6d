"""What is learned of an expert from its calls."""

import pytest

from composer.breaker import Breaker
from composer.standing import Standing
from experts_registry.errors import ExpertOverloadedError, ExpertUnavailableError
from experts_registry.schema import ExpertSpec
from tests.composer.test_breaker import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def standing(clock):
    standing = Standing(ExpertSpec(name="a", kind="llm", backend="echo", model="echo"))
    standing.breaker = Breaker(clock)
    for _ in range(5):
        with pytest.raises(ExpertUnavailableError), standing.call():
            raise ExpertUnavailableError("down")
    clock.now += 6
    return standing


def refuses(standing):
    try:
        with standing.call():
            return False
    except ExpertOverloadedError:
        return True


def test_others_need_not_wait_for_the_end_of_a_stream_that_probes(standing):
    with standing.call() as answers:
        assert refuses(standing)
        answers()
        assert not refuses(standing)
    assert standing.breaker.state == "closed"


def test_a_probe_that_breaks_after_its_beginning_is_one_failure_of_many(standing):
    def cut():
        with standing.call() as answers:
            answers()
            raise ExpertUnavailableError("cut")

    with pytest.raises(ExpertUnavailableError):
        cut()
    assert standing.breaker.state == "closed"


def test_a_probe_that_its_caller_gives_up_lets_another_one_try(standing):
    with pytest.raises(KeyboardInterrupt), standing.call():
        raise KeyboardInterrupt
    assert not refuses(standing)
