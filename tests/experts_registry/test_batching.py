import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from experts_registry.batching import Batcher
from experts_registry.errors import ExpertBusyError, ExpertUnavailableError


class Gate:
    """Doubles numbers, recording its batches; the first batch waits until it is opened."""

    def __init__(self):
        self.batches = []
        self.started = threading.Event()
        self.opened = threading.Event()

    def __call__(self, items):
        self.batches.append(items)
        self.started.set()
        assert self.opened.wait(10)
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def batcher(run, **options):
    return Batcher(run, where="expert 'x'", **{"window": 0, **options})


def hold(batches, gate):
    """Occupy the thread, so that what follows queues up."""
    first = batches.submit(0)
    assert gate.started.wait(10)
    return first


def test_waiting_items_share_a_batch_of_bounded_size(gate):
    batches = batcher(gate, max_batch=3)
    hold(batches, gate)
    futures = [batches.submit(i) for i in range(1, 6)]
    gate.opened.set()
    assert [f.result(10) for f in futures] == [2, 4, 6, 8, 10]
    assert gate.batches == [[0], [1, 2, 3], [4, 5]]


def test_only_items_of_one_key_share_a_batch_oldest_first(gate):
    batches = batcher(gate)
    hold(batches, gate)
    futures = [batches.submit(i, key=i % 2) for i in (1, 2, 3, 4)]
    gate.opened.set()
    assert [f.result(10) for f in futures] == [2, 4, 6, 8]
    assert gate.batches == [[0], [1, 3], [2, 4]]


def test_a_window_collects_what_several_threads_send_at_once():
    seen = []
    batches = batcher(lambda items: seen.append(items) or items, window=5, max_batch=4)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda i: batches.submit(i).result(10), range(4)))
    assert answers == [0, 1, 2, 3]
    assert [sorted(items) for items in seen] == [[0, 1, 2, 3]]


def test_a_bad_item_fails_alone(gate):
    batches = batcher(gate)
    gate.opened.set()
    good, bad = batches.submit(1), batches.submit(-1)
    assert good.result(10) == 2
    with pytest.raises(ValueError, match="-1"):
        bad.result(10)


def test_a_failed_batch_fails_its_items_and_not_the_next():
    def run(items):
        if items == [0]:
            raise MemoryError("too large")
        return items

    batches = batcher(run, max_batch=1)
    first, second = batches.submit(0), batches.submit(1)
    with pytest.raises(MemoryError, match="too large"):
        first.result(10)
    assert second.result(10) == 1


def test_a_wrong_number_of_results_fails_the_batch():
    batches = batcher(lambda items: [])
    with pytest.raises(ValueError, match="shorter"):
        batches.submit(1).result(10)


def test_a_full_queue_refuses(gate):
    batches = batcher(gate, max_queue=2)
    hold(batches, gate)
    waiting = [batches.submit(1), batches.submit(2)]
    with pytest.raises(ExpertBusyError, match="expert 'x': 2 calls are waiting"):
        batches.submit(3)
    gate.opened.set()
    assert [f.result(10) for f in waiting] == [2, 4]


def test_a_cancelled_item_is_not_run(gate):
    batches = batcher(gate)
    first = hold(batches, gate)
    cancelled, kept = batches.submit(1), batches.submit(2)
    assert cancelled.cancel()
    gate.opened.set()
    assert (first.result(10), kept.result(10)) == (0, 4)
    assert gate.batches == [[0], [2]]


def test_closing_fails_what_waits_and_lets_the_running_batch_notice():
    def run(items):
        started.set()
        while not batches.is_closing:
            pass
        return ["noticed"]

    started = threading.Event()
    batches = batcher(run, max_batch=1)
    running, waiting = batches.submit(1), batches.submit(2)
    assert started.wait(10)
    batches.close()
    assert running.result(10) == "noticed"
    with pytest.raises(ExpertUnavailableError, match="closed"):
        waiting.result(10)
    with pytest.raises(ExpertUnavailableError, match="closed"):
        batches.submit(3)
    batches.close()


def test_results_reach_several_event_loops():
    batches = batcher(lambda items: [i + 1 for i in items])

    async def ask(i):
        return await asyncio.wrap_future(batches.submit(i))

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda i: asyncio.run(ask(i)), range(6)))
    assert answers == [1, 2, 3, 4, 5, 6]
