import asyncio
import copy
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from composer.admission import Admission
from composer.keys import Key
from composer.rates import RateWindows
from composer.spending import Spending, Spent
from experts_registry.errors import AccessError, DataError, ForbiddenError, LimitError, OptionError

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Moves both the wall and the monotonic clock."""
    return Clock(NOON)


@pytest.fixture
def where(tmp_path):
    """The database; `test_postgres` puts another one in its place."""
    return tmp_path / "keys.db"


@pytest.fixture
def admission(where, clock):
    spending = Spending(where, clock=clock)
    with closing(Admission(where, spending=spending, rates=RateWindows(clock))) as admission:
        yield admission


def a_key(**limits):
    return Key(id="0123456789", name="alice", created=datetime.now(UTC), **limits)


def ask(admission, key, *, model="auto", tokens=100, usd=0.1):
    return admission.reserve(key, model=model, tokens=tokens, usd=usd)


def refused(admission, key, **request):
    with pytest.raises(LimitError) as error:
        ask(admission, key, **request)
    return error.value


# -- budgets ------------------------------------------------------------------------------------


def test_a_hundred_threads_on_a_budget_for_ten_calls_get_exactly_ten(where):
    key, barrier = a_key(usd=0.7), threading.Barrier(100)

    def call(admission):
        barrier.wait()
        try:
            reservation = ask(admission, key, usd=0.07)
        except LimitError:
            return 0
        reservation.settle(tokens=10, usd=0.07)
        return 1

    with (
        closing(Admission(where)) as admission,
        ThreadPoolExecutor(100) as pool,
    ):
        assert sum(pool.map(call, [admission] * 100)) == 10
        assert admission.spent(key).usd == 0.7
        assert admission.spent(key).reserved == 0


def test_a_hundred_tasks_on_a_budget_for_ten_calls_get_exactly_ten(where):
    key = a_key(usd=1.0)

    async def call(admission):
        try:
            reservation = await admission.areserve(key, model="auto", tokens=1, usd=0.1)
        except LimitError:
            return 0
        await reservation.asettle(tokens=1, usd=0.1)
        return 1

    async def all_calls(admission):
        return sum(await asyncio.gather(*(call(admission) for _ in range(100))))

    with closing(Admission(where)) as admission:
        assert asyncio.run(all_calls(admission)) == 10
        assert admission.spent(key).usd == 1.0


CALLER = """
import sys
from datetime import UTC, datetime
from composer.admission import Admission
from composer.keys import Key
from experts_registry.errors import LimitError
key = Key(id="0123456789", name="alice", created=datetime.now(UTC), usd=1.0)
admission, granted = Admission(sys.argv[1]), []
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    try:
        granted.append(admission.reserve(key, model="auto", tokens=1, usd=0.1))
    except LimitError:
        pass
    if i % 5 == 4:  # several are open at a time
        for reservation in granted:
            reservation.settle(tokens=1, usd=0.1)
print(len(granted))
"""


def test_four_processes_of_25_calls_on_a_budget_for_ten_get_exactly_ten(where):
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [caller.stdout.readline() for caller in callers] == ["ready\n"] * 4
    for caller in callers:
        caller.stdin.write("go\n")
        caller.stdin.flush()
    granted = [int(caller.communicate(timeout=60)[0]) for caller in callers]
    assert [caller.returncode for caller in callers] == [0] * 4
    assert sum(granted) == 10
    with closing(Spending(where)) as spending:
        assert spending.spent("0123456789") == Spent(1.0, 0.0)


def test_what_is_left_of_a_reservation_is_there_for_others(admission):
    key = a_key(usd=1.0)
    first = ask(admission, key, usd=0.9)
    assert refused(admission, key, usd=0.2).limit == "usd"
    first.settle(tokens=10, usd=0.3)
    second = ask(admission, key, usd=0.7)
    second.release()
    assert (admission.spent(key).usd, admission.spent(key).reserved) == (0.3, 0.0)


def test_only_the_first_of_settle_and_release_counts(admission):
    key = a_key(usd=1.0)
    reservation = ask(admission, key, usd=0.5)
    reservation.settle(tokens=10, usd=0.4)
    reservation.release()
    reservation.settle(tokens=10, usd=0.4)
    assert admission.spent(key).usd == 0.4


def test_a_call_that_cost_more_than_was_reserved_is_charged_in_full(admission):
    key = a_key(usd=1.0)
    ask(admission, key, usd=0.5).settle(tokens=10, usd=1.5)
    assert admission.spent(key).usd == 1.5
    assert refused(admission, key, usd=0.0).retry_after is None


def test_reservations_of_a_dead_process_come_back_after_a_quarter_of_an_hour(
    admission, tmp_path, clock, caplog
):
    key = a_key(usd=0.3)
    died = "import sys, os, signal; from composer.spending import Spending\n"
    died += f"s = Spending(sys.argv[1], clock=lambda: {NOON})\n"
    died += "for i in range(3): s.reserve('0123456789', 0.1, budget=0.3, per='total')\n"
    died += "os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", died, str(tmp_path / "keys.db")], check=False)
    assert done.returncode == -9
    clock.now += 900
    refused(admission, key)
    clock.now += 0.1
    with caplog.at_level(logging.WARNING, logger="composer"):
        for _ in range(3):
            ask(admission, key)
    refused(admission, key)
    assert admission.spending.expired == 3
    assert caplog.text.count("key 0123456789: 0.1 USD that were set aside are given back") == 3


def test_a_call_that_outlives_its_reservation_is_charged_once(admission, clock):
    key = a_key(usd=0.2)
    slow, slower = ask(admission, key), ask(admission, key)
    clock.now += 901
    ask(admission, key)  # takes both for dead
    slow.settle(tokens=1, usd=0.1)
    slower.release()
    assert admission.spent(key) == Spent(0.1, 0.1)


@pytest.mark.parametrize(
    ("per", "wait"), [("day", 12 * 3600), ("month", 5.5 * 86400), ("total", None)]
)
def test_a_budget_returns_with_the_next_period(admission, clock, per, wait):
    key = a_key(usd=0.1, per=per)
    ask(admission, key).settle(tokens=1, usd=0.1)
    error = refused(admission, key)
    assert (error.status, error.code, error.limit) == (429, "insufficient_quota", "usd")
    assert error.retry_after == wait
    if wait is not None:
        clock.now += wait
        ask(admission, key)


def test_a_call_is_settled_in_the_period_it_was_reserved_in(admission, clock):
    key = a_key(usd=0.1, per="day")
    late = ask(admission, key)
    clock.now += 12 * 3600
    late.settle(tokens=1, usd=0.1)
    assert admission.spent(key).usd == 0
    ask(admission, key)


def test_a_call_larger_than_the_whole_budget_is_told_that_waiting_does_not_help(admission):
    error = refused(admission, a_key(usd=0.1, per="day"), usd=0.2)
    assert error.retry_after is None
    assert "0.1 USD a day has no room for a call of up to 0.2 USD" in str(error)


def test_a_key_without_a_budget_still_tells_what_it_spent(admission):
    key = a_key()
    for _ in range(2):
        ask(admission, key, usd=5.0).settle(tokens=1, usd=0.25)
    assert admission.spent(key).usd == 0.5


@pytest.mark.parametrize("usd", [-0.1, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_refused(admission, usd):
    with pytest.raises(OptionError, match="is not an amount"):
        ask(admission, a_key(usd=1.0), usd=usd)


def test_a_database_that_cannot_be_written_is_one_error_and_takes_no_place(tmp_path, clock):
    (tmp_path / "keys.db").write_bytes(b"not a database at all, but long enough" * 50)
    key = a_key(usd=1.0, rpm=1)
    with closing(Admission(tmp_path / "keys.db", rates=RateWindows(clock))) as admission:
        for _ in range(2):
            with pytest.raises(DataError, match=r"keys: .*it is no SQLite file"):
                ask(admission, key)


def test_a_client_that_hangs_up_while_reserving_leaves_nothing_reserved(where):
    key = a_key(usd=1.0)

    async def hang_up(admission, after):
        task = asyncio.create_task(admission.areserve(key, model="auto", tokens=1, usd=0.01))
        await asyncio.sleep(after)
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            await outcome.arelease()

    with closing(Admission(where)) as admission:
        for i in range(30):
            asyncio.run(hang_up(admission, i / 10_000))
    with closing(Spending(where)) as spending:
        assert spending.spent(key.id).reserved == 0


def test_a_client_that_hangs_up_while_settling_is_charged_all_the_same(where):
    key = a_key(usd=1.0)

    async def call(admission):
        reservation = await admission.areserve(key, model="auto", tokens=1, usd=0.01)
        try:
            asyncio.current_task().cancel()  # is seen at the next await: while it settles
            await reservation.asettle(tokens=1, usd=0.01)
        finally:
            await reservation.arelease()

    with closing(Admission(where)) as admission:
        for _ in range(20):
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(call(admission))
    with closing(Spending(where)) as spending:
        assert spending.spent(key.id) == Spent(0.2, 0.0)


def test_an_absurd_cost_is_charged_as_far_as_it_can_be_written(admission):
    key = a_key(usd=1.0)
    ask(admission, key).settle(tokens=1, usd=1e300)
    refused(admission, key, usd=0)


# -- models and rates ---------------------------------------------------------------------------


def test_a_model_out_of_scope_is_403_and_costs_nothing(admission):
    key = a_key(models=("auto",), rpm=1)
    with pytest.raises(ForbiddenError) as error:
        ask(admission, key, model="big")
    assert (error.value.status, error.value.code) == (403, "permission_denied")
    ask(admission, key)


def test_requests_a_minute_slide(admission, clock):
    key = a_key(rpm=2)
    ask(admission, key)
    clock.now += 40
    ask(admission, key)
    error = refused(admission, key)
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.retry_after == pytest.approx(20)
    clock.now += 20
    ask(admission, key)
    assert refused(admission, key).retry_after == pytest.approx(40)


def test_tokens_a_minute_count_what_was_used(admission, clock):
    key = a_key(tpm=1000)
    first = ask(admission, key, tokens=900)
    assert refused(admission, key, tokens=200).limit == "tokens"
    first.settle(tokens=300, usd=0)
    clock.now += 30
    ask(admission, key, tokens=700)
    error = refused(admission, key, tokens=300)
    assert error.retry_after == pytest.approx(30)
    assert refused(admission, key, tokens=301).retry_after == pytest.approx(60)
    clock.now += 30
    ask(admission, key, tokens=300)


def test_a_request_larger_than_a_minute_never_fits(admission):
    error = refused(admission, a_key(tpm=10), tokens=11)
    assert error.retry_after is None
    assert "ask for fewer tokens" in str(error)


def test_settling_after_a_minute_changes_no_window(admission, clock):
    key = a_key(tpm=100)
    late = ask(admission, key, tokens=100)
    clock.now += 61
    ask(admission, key, tokens=100).settle(tokens=40, usd=0)
    late.settle(tokens=10_000, usd=0)
    ask(admission, key, tokens=60)
    refused(admission, key, tokens=1)


def test_a_refused_budget_takes_no_place_in_the_minute(admission):
    key = a_key(usd=0.1, rpm=2)
    ask(admission, key)
    for _ in range(5):
        assert refused(admission, key).limit == "usd"
    assert admission.rates._windows[key.id].tokens == 100


def test_keys_do_not_share_limits(admission):
    one = a_key(rpm=1, usd=0.1)
    ask(admission, one)
    ask(admission, replace(one, id="9876543210"))


def test_every_refusal_travels_between_processes_whole():
    error = copy.copy(LimitError("text", "usd", 3.0))
    assert isinstance(error, AccessError)
    assert (str(error), error.limit, error.retry_after, error.status) == ("text", "usd", 3.0, 429)
