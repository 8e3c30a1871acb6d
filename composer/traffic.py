"""What was asked of the experts in the last 24 hours, from the decision log, kept up to date.

The log is read once as a whole, for 24 hours, and from then on for the last minutes only: rows come
late by seconds, so what is older than `_LATE` does not change any more. Minutes that leave the last
hour are added to their hour, which bounds what is kept here by the names, not by the traffic.
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import add

from composer.decision_log import DecisionLog
from composer.decision_sums import Sums

__all__ = ["Summary", "Traffic"]

_LATE = timedelta(minutes=2)
_HOUR = len("2026-11-25T16")
Slots = dict[str, dict[str, Sums]]  # by minute or hour, as its time begins, then by name


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The last 24 hours, the current one included.

    Args:
        minutes: requests of the last 60 minutes, oldest first.
        hours: requests of the last 24 hours, oldest first.
        today: requests of this day (UTC).
        calls: to each expert.
        requests: for each model, by the name that was asked for.
    """

    minutes: Mapping[str, Sums]
    hours: Mapping[str, Sums]
    today: Sums
    calls: Mapping[str, Sums]
    requests: Mapping[str, Sums]


@dataclass
class Traffic:
    """Sums up a decision log for whoever watches it.

    Args:
        log: to be read.
        seconds: for how long a summary is given again; many viewers cost one look.
    """

    log: DecisionLog
    seconds: float = 2.0
    _requests: Slots = field(default_factory=dict, init=False)
    _calls: Slots = field(default_factory=dict, init=False)
    _read: datetime | None = field(default=None, init=False)
    _looked: float = field(default=0.0, init=False)
    _summary: Summary | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _looking: asyncio.Task[Summary] | None = field(default=None, init=False)

    def summary(self) -> Summary:
        """Return the sums of about now. It reads a database: call it in a thread.

        Raises:
            DataError: the database refuses.
        """
        with self._lock:
            if self._summary is None or time.monotonic() - self._looked >= self.seconds:
                self._summary = self._updated(datetime.now(UTC))
                self._looked = time.monotonic()
            return self._summary

    async def asummary(self) -> Summary:
        """Async twin of `summary`: however many wait for it, one thread looks."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self.summary))
        return await asyncio.shield(self._looking)  # a viewer who leaves stops it for nobody

    def _updated(self, now: datetime) -> Summary:
        first_hour = now - timedelta(hours=23)
        since = _hour(first_hour) if self._read is None else _minute(self._read - _LATE)
        requests, calls = self.log.sums(since)
        for slots, found in ((self._requests, requests), (self._calls, calls)):
            for slot in [slot for slot in slots if slot >= since and len(slot) > _HOUR]:
                del slots[slot]
            for minute, name, sums in found:
                slots.setdefault(minute, {})[name] = sums
            _fold(slots, _minute(now - timedelta(minutes=61)), _hour(first_hour))
        self._read = now
        return self._summed(now)

    def _summed(self, now: datetime) -> Summary:
        minutes = [_minute(now - timedelta(minutes=back)) for back in range(59, -1, -1)]
        hours = [_hour(now - timedelta(hours=back)) for back in range(23, -1, -1)]
        by_slot = {slot: _total(names) for slot, names in self._requests.items()}
        by_hour: dict[str, Sums] = dict.fromkeys(hours, Sums())
        for slot, sums in by_slot.items():
            if slot[:_HOUR] in by_hour:
                by_hour[slot[:_HOUR]] += sums
        day = f"{now:%Y-%m-%d}"
        return Summary(
            minutes={minute: by_slot.get(minute, Sums()) for minute in minutes},
            hours=by_hour,
            today=_total({hour: sums for hour, sums in by_hour.items() if hour.startswith(day)}),
            calls=_by_name(self._calls),
            requests=_by_name(self._requests),
        )


def _fold(slots: Slots, first_minute: str, first_hour: str) -> None:
    """Add old minutes to their hours, and drop what is older than a day."""
    for slot in sorted(slots):
        if slot[:_HOUR] < first_hour:
            del slots[slot]
        elif len(slot) > _HOUR and slot < first_minute:
            hour = slots.setdefault(slot[:_HOUR], {})
            for name, sums in slots.pop(slot).items():
                hour[name] = hour.get(name, Sums()) + sums


def _by_name(slots: Slots) -> dict[str, Sums]:
    found: dict[str, Sums] = {}
    for names in slots.values():
        for name, sums in names.items():
            found[name] = found.get(name, Sums()) + sums
    return found


def _total(sums: Mapping[str, Sums]) -> Sums:
    return reduce(add, sums.values(), Sums())


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M}"


def _hour(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H}"
