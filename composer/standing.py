"""What is known of experts from their calls so far: load, failures, tries that are left."""

import threading
from collections.abc import Callable, Iterator, Mapping

from composer.breaker import Breaker
from composer.faults import is_experts_fault
from composer.retries import Retries
from composer.status import ExpertStatus, Tier
from experts_registry.errors import (
    ComposerError,
    ContextLengthError,
    ExpertBusyError,
    ExpertOverloadedError,
    ExpertRequestError,
)
from experts_registry.schema import ExpertSpec

__all__ = ["Standing", "Standings"]

_MOST_IN_FLIGHT = 1000  # calls to one expert whose concurrency has no limit
_FULL_SECONDS = 1.0  # when to come back to an expert that has no room


class Standing:
    """One expert's; safe from any thread.

    Args:
        spec: names it and its limits.
    """

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec, self.breaker, self.retries = spec, Breaker(), Retries(spec.limits)
        self.in_flight = self.calls = 0
        turns = spec.limits.concurrency
        self._most = turns + spec.limits.queue if turns else _MOST_IN_FLIGHT
        self._lock = threading.Lock()

    def call(self) -> "_Call":
        """Count a call while it lasts (``with``), and learn from how it ends.

        It gives what to call once the expert answers: others need not wait for the end of a
        stream. `ExpertOverloadedError` where the expert is left alone now, or has no room.
        """
        return _Call(self)

    def left_alone(self) -> str | None:
        """Say why it should not be chosen now, or None."""
        wait = self.breaker.refuses_for
        return f"{self._why()}, for {wait:.3g} s more" if wait else None

    def status(self, tier: Tier) -> ExpertStatus:
        """Return how it is doing."""
        turns = self.spec.limits.concurrency
        return ExpertStatus(
            tier=tier,
            in_flight=self.in_flight,
            waiting=max(0, self.in_flight - turns) if turns else 0,
            breaker=self.breaker.state,
        )

    def enter(self) -> bool:
        """Let a call in; tell whether it probes.

        Raises:
            ExpertOverloadedError: the expert is left alone now, or has no room.
        """
        name = f"expert {self.spec.name!r}"
        with self._lock:
            if self.in_flight >= self._most:
                raise ExpertOverloadedError(
                    f"{name}: {self.in_flight} calls are in flight already; come back later, or "
                    "raise limits.concurrency or limits.queue",
                    _FULL_SECONDS,
                )
            if wait := self.breaker.enter():
                kind = ExpertBusyError if self.breaker.is_resting else ExpertOverloadedError
                raise kind(f"{name}: {self._why()}; come back in {wait:.3g} s", wait)
            self.in_flight += 1
            is_probe = self.breaker.is_probing
            self.calls += 1
        self.retries.earn()
        return is_probe

    def leave(self, error: BaseException | None, *, is_probe: bool) -> None:
        """End a call, and learn from how it ended."""
        if error is None:
            self.breaker.succeeded(is_probe=is_probe)
        elif isinstance(error, ComposerError):
            self._learn(error, is_probe=is_probe)
        else:  # the caller gave up, or hung up
            self.breaker.abandoned(is_probe=is_probe)
        with self._lock:
            self.in_flight -= 1

    def _why(self) -> str:
        return "asked for a pause" if self.breaker.is_resting else "failed too often lately"

    def _learn(self, error: ComposerError, *, is_probe: bool) -> None:
        if isinstance(error, ExpertBusyError) and error.retry_after:
            self.breaker.rest(error.retry_after, is_probe=is_probe)
        elif is_experts_fault(error):
            self.breaker.failed(is_probe=is_probe)
        elif isinstance(error, ContextLengthError | ExpertRequestError):
            self.breaker.succeeded(is_probe=is_probe)  # it was there to say no
        else:
            self.breaker.abandoned(is_probe=is_probe)


class _Call:
    """One call to an expert."""

    def __init__(self, standing: Standing) -> None:
        self._standing, self._is_probe = standing, False

    def __enter__(self) -> Callable[[], None]:
        self._is_probe = self._standing.enter()
        return self._answers

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._standing.leave(error, is_probe=self._is_probe)

    def _answers(self) -> None:
        if self._is_probe:
            self._standing.breaker.succeeded(is_probe=True)
            self._is_probe = False


class Standings(Mapping[str, Standing]):
    """Of all experts of a registry.

    Args:
        experts: by name.
    """

    def __init__(self, experts: Mapping[str, ExpertSpec]) -> None:
        self._all = {name: Standing(spec) for name, spec in experts.items()}

    def join(self, older: "Standings") -> None:
        """Share those of an older edition whose experts the edit did not change."""
        for name, one in older.items():
            if name in self._all and self._all[name].spec == one.spec:
                self._all[name] = one

    def __getitem__(self, expert: str) -> Standing:
        return self._all[expert]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def load(self, expert: str) -> tuple[int, int]:
        """Return the calls of an expert in flight, and all that were made."""
        return self._all[expert].in_flight, self._all[expert].calls

    def left_alone(self) -> dict[str, str]:
        """Say why experts should not be chosen now."""
        return {name: why for name, one in self._all.items() if (why := one.left_alone())}
