"""Budgets in memory: a process sets money aside for its next calls, and hands it out without waits.

A lease is a reservation like any other (`composer.spending`), so neither threads nor processes can
spend the same money twice. Calls are let in and charged in memory; a thread writes what was spent,
for all keys at once, a few times a second. Of a budget that is nearly used up nothing is leased:
there every call reserves for itself, and no process keeps what another one could use.

What a killed process had not yet written is lost, at most ``flush_seconds`` of charges; one that
ends by `Leases.close` loses nothing.
"""

import logging
import threading
import time
from dataclasses import dataclass

from composer.amounts import nano_usd
from composer.keys import Key
from composer.spending import Change, Hold, Spending, Spent, Written
from experts_registry.errors import DataError, LimitError

__all__ = ["Claim", "Leases"]

logger = logging.getLogger(__name__)

_CALLS = 32  # that a lease is for
_SHARE = 64  # a lease is at most this part of what is left of the budget
_REFUSED_SECONDS = 1.0  # before one that was refused is asked for again


@dataclass(eq=False)
class _Lease:
    """Billionths of a USD that the database has set aside, and what became of them."""

    key_id: str
    period: str
    most: int = 0  # the budget
    hold_id: str | None = None
    held: int = 0  # in the database
    promised: int = 0  # to calls that are running
    spent: int = 0  # and not yet written
    size: int = 0  # that it should have
    used: float = 0.0

    @property
    def free(self) -> int:
        """What may be promised; below 0 where calls cost more than they might."""
        return self.held - self.promised - self.spent

    @property
    def is_over(self) -> bool:
        return not (self.held or self.promised or self.spent)


@dataclass(frozen=True)
class Claim:
    """What one call may cost, out of a lease."""

    lease: _Lease
    nano: int


class Leases:
    """The leases of one process; safe from any thread.

    Args:
        spending: where money is set aside.
        flush_seconds: between two writes of what was spent.
        idle_seconds: after this an unused lease is given back.
    """

    def __init__(
        self, spending: Spending, *, flush_seconds: float = 0.5, idle_seconds: float = 1.0
    ) -> None:
        self._spending = spending
        self._flush_seconds, self._idle_seconds = flush_seconds, idle_seconds
        self._leases: dict[tuple[str, str], _Lease] = {}
        self._refused: dict[tuple[str, str], float] = {}  # the last one
        self._lock = threading.Lock()  # the numbers; held for microseconds
        self._writing = threading.Lock()  # the database; held while it is waited for
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, key: Key, usd: float) -> Claim | None:
        """Promise money without waiting; None where that needs the database."""
        nano, where = nano_usd(usd), (key.id, self._spending.period(key.per))
        with self._lock:
            lease = self._leases.get(where)
            if lease is None or lease.free < nano:
                return None
            lease.promised += nano
            lease.used = time.monotonic()
            return Claim(lease, nano)

    def reserve(self, key: Key, usd: float) -> Claim | Hold:
        """Promise money; it may wait for the database.

        Raises:
            LimitError: the budget has no room.
            DataError: the database cannot be written.
        """
        with self._writing:
            if (claim := self.take(key, usd) or self._leased(key, usd)) is not None:
                return claim
        try:
            return self._reserved(key, usd)
        except LimitError:
            if not self._give_back(key):
                raise
        return self._reserved(key, usd)

    def settle(self, claim: Claim, usd: float) -> None:
        """Turn a promise into what the call did cost, also where that is more."""
        nano = nano_usd(usd)
        with self._lock:
            claim.lease.promised -= claim.nano
            claim.lease.spent += nano
        if self._closing.is_set():
            self.flush()

    def spend(self, key: Key, usd: float) -> None:
        """Note what a key without a budget has spent."""
        where = key.id, self._spending.period(key.per)
        with self._lock:
            lease = self._leases.setdefault(where, _Lease(*where))
            lease.spent += nano_usd(usd)
        self._begin()

    def spent(self, key: Key) -> Spent:
        """Return what a key has spent and promised in its current period."""
        self.flush()
        found = self._spending.spent(key.id, per=key.per)
        with self._lock:
            lease = self._leases.get((key.id, self._spending.period(key.per)))
            free = lease.free if lease is not None else 0
        return Spent(found.usd, round(found.reserved - free / 1e9, 9))

    def flush(self) -> None:
        """Write what was spent, keep leases in use at their size, give the others back.

        Raises:
            DataError: the database cannot be written; it is tried again with the next flush.
        """
        now = time.monotonic()
        with self._writing:
            with self._lock:
                leases = [each for each in self._leases.values() if not each.is_over]
                idle = [now - each.used > self._idle_seconds for each in leases]
            is_closing = self._closing.is_set()
            self._write([(e, is_closing or i) for e, i in zip(leases, idle, strict=True)])

    def close(self) -> None:
        """Write everything and give back what no running call was promised."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except DataError as error:
            logger.error("%s (what was spent last is not charged)", error)

    # -- inside ---------------------------------------------------------------------------------

    def _reserved(self, key: Key, usd: float) -> Hold:
        return self._spending.reserve(key.id, usd, budget=key.usd or 0.0, per=key.per)

    def _leased(self, key: Key, usd: float) -> Claim | None:
        """Set money aside for this call and others like it, where there is plenty."""
        nano, most = nano_usd(usd), nano_usd(key.usd or 0.0)
        size = _CALLS * nano
        if not 0 < size * _SHARE <= most:
            return None
        where = key.id, self._spending.period(key.per)
        if time.monotonic() - self._refused.get(where, float("-inf")) < _REFUSED_SECONDS:
            return None
        with self._lock:
            lease = self._leases.setdefault(where, _Lease(*where))
            lease.most, lease.size = most, max(lease.size, size)
            lease.used = time.monotonic()
        self._write([(lease, False)])
        claim = self.take(key, usd)
        if claim is None:
            self._refused = {where: time.monotonic()}
        return claim

    def _give_back(self, key: Key) -> bool:
        """Give back what is free of a key's lease; tell whether that was anything."""
        with self._writing:
            with self._lock:
                lease = self._leases.get((key.id, self._spending.period(key.per)))
                if lease is None or lease.free <= 0:
                    return False
            self._write([(lease, True)])
        return True

    def _write(self, leases: list[tuple[_Lease, bool]]) -> None:
        """Write leases, each with whether to give back what is free of it."""
        with self._lock:
            changes = [self._change(lease, is_ending) for lease, is_ending in leases]
        try:
            written = self._spending.write(changes)
        except BaseException:
            with self._lock:
                for (lease, _), change in zip(leases, changes, strict=True):
                    lease.spent += change.spent
                    lease.held += change.released
            raise
        with self._lock:
            for (lease, _), done in zip(leases, written, strict=True):
                self._note(lease, done)
        self._begin()

    def _change(self, lease: _Lease, is_ending: bool) -> Change:
        """Take from a lease what is about to be written."""
        spent, free = lease.spent, max(0, lease.free)
        released = max(0, min(spent, lease.held - lease.promised)) + (free if is_ending else 0)
        lease.spent, lease.held = 0, lease.held - released
        is_low = not is_ending and lease.free < lease.size // 2
        return Change(
            key_id=lease.key_id,
            period=lease.period,
            spent=spent,
            released=released,
            hold_id=lease.hold_id,
            held=lease.held,
            wanted=(wanted := lease.size - lease.free if is_low else 0),
            most=lease.most - (_SHARE - 1) * wanted,
        )

    def _note(self, lease: _Lease, written: Written) -> None:
        """Book what was written."""
        if written.hold_id is None:  # given back, or another process took it for dead
            lease.held = 0
        lease.hold_id, lease.held = written.hold_id, lease.held + written.grown
        if lease.is_over:
            self._leases.pop((lease.key_id, lease.period), None)

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and self._leases and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Flush until nothing is leased."""
        while not self._closing.wait(self._flush_seconds):
            try:
                self.flush()
            except DataError as error:
                logger.warning("%s (what was spent is written later)", error)
            with self._lock:
                if not self._leases:
                    self._thread = None
                    return
