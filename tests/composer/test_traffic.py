import asyncio
import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from composer import traffic as traffic_module
from composer.decision_log import DecisionLog, Logged
from composer.decision_sums import Sums
from composer.trace import Step
from composer.traffic import Traffic
from experts_registry.types import Usage

NOW = datetime(2026, 11, 25, 16, 21, 30, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    with closing(DecisionLog(tmp_path / "decisions.db", flush_seconds=0.01)) as log:
        yield log


class Clock(datetime):
    moment = NOW

    @classmethod
    def now(cls, tz=None):
        return cls.moment


@pytest.fixture
def traffic(log, monkeypatch):
    """Give sums of a log at a time that the test sets, read anew each time."""
    monkeypatch.setattr(Clock, "moment", NOW)
    monkeypatch.setattr(traffic_module, "datetime", Clock)
    return Traffic(log, seconds=0)


def step(expert, *, cost=0.0, seconds=1.0, error=None):
    return Step(expert=expert, seconds=seconds, usage=Usage(), cost=cost, error=error)


def add(log, *steps, ago=0.0, now=None, status=200, model="auto", seconds=1.0):
    fields = {"status": status, "model": model, "steps": steps, "seconds": seconds}
    logged = Logged.ended(request_id="r", **fields)
    time = (now or Clock.moment) - timedelta(minutes=ago)
    log.add(replace(logged, time=time.isoformat(timespec="milliseconds")))
    log.flush()


def test_calls_count_for_the_expert_that_was_called(log, traffic):
    failed = step("dead", error="ExpertTimeoutError: no", seconds=9)
    add(log, failed, step("cheap", cost=0.5, seconds=2))
    add(log, step("cheap", cost=0.25, seconds=4))
    add(log, failed, status=504)
    summary = traffic.summary()
    assert summary.calls == {"dead": Sums(2, 2, 0.0, 0.0), "cheap": Sums(2, 0, 6.0, 0.75)}
    assert summary.calls["cheap"].mean_seconds == 3.0
    assert summary.calls["dead"].mean_seconds is None
    assert summary.requests == {"auto": Sums(3, 1, 2.0, 0.75)}


def test_a_client_that_left_is_no_failure(log, traffic):
    add(log, status=499)
    assert traffic.summary().requests["auto"].errors == 0


def test_requests_stand_in_their_minute_their_hour_and_their_day(log, traffic):
    add(log, step("cheap", cost=1), ago=0)
    add(log, step("cheap", cost=2), ago=59)
    add(log, step("cheap", cost=4), ago=60)
    add(log, step("cheap", cost=8), ago=17 * 60)  # yesterday
    add(log, step("cheap", cost=16), ago=25 * 60)
    summary = traffic.summary()
    minutes, hours = list(summary.minutes), list(summary.hours)
    assert (len(minutes), minutes[0], minutes[-1]) == (60, "2026-11-25T15:22", "2026-11-25T16:21")
    assert (len(hours), hours[0], hours[-1]) == (24, "2026-11-24T17", "2026-11-25T16")
    assert [sums.usd for sums in summary.minutes.values() if sums.usd] == [2, 1]
    spent = {hour: sums.usd for hour, sums in summary.hours.items() if sums.usd}
    assert spent == {"2026-11-24T23": 8, "2026-11-25T15": 6, "2026-11-25T16": 1}
    assert summary.today.usd == 7
    assert summary.calls["cheap"].usd == 15


def test_sums_stay_right_while_time_passes(log, traffic):
    for minute in range(200):
        Clock.moment = NOW + timedelta(minutes=minute)
        add(log, step("cheap", cost=1))
        if minute % 7 == 0:  # late rows, and looks far apart
            traffic.summary()
    summary, anew = traffic.summary(), Traffic(log).summary()
    assert summary == anew
    assert summary.calls["cheap"].usd == 200
    assert sum(sums.usd for sums in summary.minutes.values()) == 60


def test_a_row_that_comes_late_is_counted_once(log, traffic):
    add(log, step("cheap", cost=1))
    traffic.summary()
    add(log, step("cheap", cost=2), ago=1)
    assert traffic.summary().calls["cheap"].usd == 3
    assert traffic.summary().calls["cheap"].usd == 3


def test_viewers_who_leave_stop_no_other_and_share_one_look(log, traffic):
    add(log, step("cheap"))

    async def watch():
        leaving = asyncio.create_task(traffic.asummary())
        staying = [asyncio.create_task(traffic.asummary()) for _ in range(20)]
        await asyncio.sleep(0)
        leaving.cancel()
        return await asyncio.gather(*staying)

    found = asyncio.run(watch())
    assert all(summary is found[0] for summary in found)
    assert found[0].calls["cheap"].requests == 1


def test_what_is_kept_does_not_grow_with_time(log, traffic):
    for hour in range(60):
        Clock.moment = NOW + timedelta(hours=hour)
        add(log, step("cheap"))
        summary = traffic.summary()
    assert summary.calls["cheap"].requests == 24
    assert len(traffic._calls) <= 24 + 61


def test_many_viewers_cost_one_look(log, traffic):
    traffic.seconds = 60
    first = traffic.summary()
    add(log, step("cheap"))
    assert traffic.summary() is first


def test_nothing_was_logged_yet(traffic):
    assert traffic.summary().today == Sums()


@pytest.mark.skipif("POSTGRES_URL" not in os.environ, reason="POSTGRES_URL names no database")
def test_postgres_sums_up_the_same():
    dead, cheap = (f"{name}-{uuid4().hex}" for name in ("dead", "cheap"))
    with closing(DecisionLog(os.environ["POSTGRES_URL"], flush_seconds=0.01)) as log:
        steps = step(dead, error="ExpertError"), step(cheap, cost=0.5, seconds=2)
        add(log, *steps, now=datetime.now(UTC))
        calls = Traffic(log).summary().calls
    assert (calls[dead], calls[cheap]) == (Sums(1, 1, 0.0, 0.0), Sums(1, 0, 2.0, 0.5))
