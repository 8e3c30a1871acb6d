"""What is read when metrics are asked for: experts, the edition of the file, the decision log."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from composer.decision_log import DecisionLog
from composer.http.editions import Editions

__all__ = ["Live"]

_BREAKER = ("closed", "half-open", "open")


class Doorway(Protocol):
    """Knows how many requests are inside."""

    in_flight: int


class Live(Collector):
    """Reads at every scrape what nobody has to count."""

    def __init__(self, editions: Editions, log: DecisionLog, doorway: Doorway) -> None:
        self._editions, self._log, self._doorway = editions, log, doorway

    def describe(self) -> Iterable[Metric]:
        """Name nothing: the registry would read everything once to learn it."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        yield _gauge(
            "requests_in_flight", "Requests that are being answered.", self._doorway.in_flight
        )
        yield from self._experts()
        yield from self._edition()
        yield from self._decisions()

    def _experts(self) -> Iterator[Metric]:
        running = _family(
            "expert_in_flight", "Calls that have begun, waiting ones included.", "expert"
        )
        waiting = _family("expert_waiting", "Calls that wait for their turn.", "expert")
        breaker = _family("expert_breaker", "1 for the state that it is in.", "expert", "state")
        tier = _family("expert_tier", "1 for where its weights are.", "expert", "tier")
        for name, status in self._editions.composer.status().items():
            running.add_metric((name,), status.in_flight)
            waiting.add_metric((name,), status.waiting)
            tier.add_metric((name, status.tier), 1)
            for state in _BREAKER:
                breaker.add_metric((name, state), status.breaker == state)
        yield from (running, waiting, breaker, tier)

    def _edition(self) -> Iterator[Metric]:
        editions = self._editions
        generation = editions.composer.registry.generation
        yield _gauge("generation", "Of the expert file that serves.", generation)
        reloads = CounterMetricFamily(
            "expert_composer_reloads", "Edits of the expert file.", labels=("result",)
        )
        for result, count in editions.reloads.items():
            reloads.add_metric((result,), count)
        yield reloads
        last = editions.last_reload
        is_good = last is None or last["ok"]
        yield _gauge("last_reload_ok", "0 where the last edit was refused.", is_good)

    def _decisions(self) -> Iterator[Metric]:
        log = self._log
        yield _gauge("decision_log_waiting", "Rows that are not written yet.", log.waiting)
        yield _gauge("decision_log_lag_seconds", "Age of the oldest of them.", log.lag)
        yield CounterMetricFamily(
            "expert_composer_decision_log_dropped", "Rows that were not written.", log.dropped
        )


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"expert_composer_{name}", about, float(value))


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"expert_composer_{name}", about, labels=labels)
