import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest

from composer.admission import Admission
from composer.keys import Key
from composer.spending import Spending, Spent
from experts_registry.errors import DataError, LimitError

CALL = 0.0001


def a_key(**limits):
    return Key(id="0123456789", name="alice", created=datetime.now(UTC), **limits)


def ask(admission, key, usd=CALL):
    return admission.reserve(key, model="auto", tokens=1, usd=usd)


def written(path):
    """Return what the database holds: spent and reserved billionths, and reservations."""
    with closing(sqlite3.connect(path)) as raw:
        [sums] = raw.execute("SELECT spent, reserved FROM spending").fetchall()
        return (*sums, raw.execute("SELECT count(*) FROM holds").fetchone()[0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.db"


CALLER = """
import sys
from datetime import UTC, datetime
from composer.admission import Admission
from composer.keys import Key
from experts_registry.errors import LimitError
key = Key(id="0123456789", name="alice", created=datetime.now(UTC), usd=1.0)
admission, granted, calls = Admission(sys.argv[1]), 0, int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for i in range(calls):
    try:
        reservation = admission.reserve(key, model="auto", tokens=1, usd=0.0001)
    except LimitError:
        break
    granted += 1
    reservation.settle(tokens=1, usd=0.0001)
admission.close()
print(granted)
"""


def test_processes_that_lease_never_exceed_a_budget_and_leave_nothing_unused(path):
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(path), "4000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [caller.stdout.readline() for caller in callers] == ["ready\n"] * 3
    for caller in callers:
        caller.stdin.write("go\n")
        caller.stdin.flush()
    granted = sum(int(caller.communicate(timeout=120)[0]) for caller in callers)
    assert granted <= 10_000
    assert written(path) == (granted * 100_000, 0, 0)
    with closing(Admission(path)) as admission:  # who comes later gets the rest, to the last call
        key = a_key(usd=1.0)
        for _ in range(10_000 - granted):
            ask(admission, key).settle(tokens=1, usd=CALL)
        with pytest.raises(LimitError):
            ask(admission, key)
    assert written(path) == (10**9, 0, 0)


def test_threads_that_share_a_lease_spend_no_more_than_the_budget(path):
    key, barrier = a_key(usd=0.25), threading.Barrier(8)

    def calls(admission):
        barrier.wait()
        granted = 0
        for _ in range(500):
            try:
                ask(admission, key).settle(tokens=1, usd=CALL)
                granted += 1
            except LimitError:
                return granted
        return granted

    with closing(Admission(path)) as admission, ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(calls, [admission] * 8)) == 2500
    assert written(path) == (250_000_000, 0, 0)


def test_a_call_from_a_lease_does_not_wait_for_the_database(path):
    key = a_key(usd=1000.0)

    async def call(admission):
        reservation = await admission.areserve(key, model="auto", tokens=1, usd=CALL)
        await reservation.asettle(tokens=1, usd=CALL / 2)

    with closing(Admission(path)) as admission, closing(sqlite3.connect(path)) as other:
        asyncio.run(call(admission))
        other.execute("BEGIN IMMEDIATE")  # from now on nobody else can write
        asyncio.run(asyncio.wait_for(call(admission), 5))
        other.rollback()
        assert admission.spent(key) == Spent(CALL, 0.0)


def test_a_lease_that_is_not_used_is_given_back(path):
    key = a_key(usd=1000.0)
    with closing(Admission(path)) as admission:
        ask(admission, key).settle(tokens=1, usd=CALL)
        assert written(path)[1] > 0
        running = admission._leases._thread
        running.join(30)
        assert not running.is_alive()
        assert written(path) == (100_000, 0, 0)
        ask(admission, key).settle(tokens=1, usd=CALL)
        assert admission.spent(key).usd == 2 * CALL


def test_what_running_calls_were_promised_stays_set_aside_at_the_end(path):
    key = a_key(usd=1000.0)
    with closing(Admission(path)) as admission:
        running = ask(admission, key)
        ask(admission, key).settle(tokens=1, usd=CALL)
    assert written(path) == (100_000, 100_000, 1)
    running.settle(tokens=1, usd=3 * CALL)  # a call that outlived its server's patience
    assert written(path) == (400_000, 0, 0)


def test_calls_that_cost_more_than_they_might_are_charged_in_full(path):
    key = a_key(usd=1.0)
    with closing(Admission(path)) as admission:
        running = ask(admission, key)
        ask(admission, key).settle(tokens=1, usd=0.5)
        assert admission.spent(key) == Spent(0.5, CALL)
        running.settle(tokens=1, usd=0.6)
        with pytest.raises(LimitError):
            ask(admission, key)
    assert written(path) == (1_100_000_000, 0, 0)


def test_a_larger_call_gets_what_a_lease_of_its_own_process_keeps(path):
    key = a_key(usd=1.0)
    with closing(Admission(path)) as admission:
        ask(admission, key).settle(tokens=1, usd=0.0)
        ask(admission, key, usd=1.0).settle(tokens=1, usd=1.0)
    assert written(path) == (10**9, 0, 0)


def test_a_lease_that_others_took_for_dead_is_charged_and_promises_nothing_more(path):
    now = 0.0
    spending, key = Spending(path, clock=lambda: now), a_key(usd=1.0)
    with closing(Admission(path, spending=spending)) as admission:
        late = ask(admission, key)
        with closing(Spending(path, clock=lambda: now + 10_000)) as other:
            taken = other.reserve(key.id, 1.0, budget=1.0, per="total")
            admission._leases.flush()  # finds out
            with pytest.raises(LimitError):
                ask(admission, key)
            other.settle(taken, 0.5)
        late.settle(tokens=1, usd=CALL)
    spent, reserved, _ = written(path)
    assert spent == 500_100_000
    assert reserved == 0


def test_a_database_that_cannot_be_written_for_a_while_loses_no_charge(path):
    key = a_key(usd=1000.0)
    spending = Spending(path, busy_seconds=0.05)
    with closing(Admission(path, spending=spending)) as admission:
        reservation = ask(admission, key)
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            reservation.settle(tokens=1, usd=CALL)
            with pytest.raises(DataError, match="locked"):
                admission._leases.flush()
            other.rollback()
    assert written(path) == (100_000, 0, 0)


def test_a_killed_process_leaves_its_lease_to_expire(path):
    died = "import sys, os, signal; from datetime import UTC, datetime\n"
    died += "from composer.admission import Admission; from composer.keys import Key\n"
    died += "key = Key(id='0123456789', name='a', created=datetime.now(UTC), usd=1.0)\n"
    died += "Admission(sys.argv[1]).reserve(key, model='auto', tokens=1, usd=0.0001)\n"
    died += "os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", died, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert written(path)[1] > 0
    with closing(Spending(path, clock=lambda: datetime.now(UTC).timestamp() + 901)) as later:
        later.settle(later.reserve("0123456789", 1.0, budget=1.0, per="total"), 1.0)
    assert written(path) == (10**9, 0, 0)
