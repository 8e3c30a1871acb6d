"""Let a request in, or say why not: the model, the rates and the budget of its key.

Example:
    >>> reservation = await admission.areserve(key, model="auto", tokens=900, usd=0.02)
    ... try:
    ...     answer = await composer.aquery(...)
    ...     await reservation.asettle(tokens=812, usd=answer.cost)
    ... finally:
    ...     await reservation.arelease()  # does nothing after asettle
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from composer.keys import Key
from composer.leases import Claim, Leases
from composer.rates import Entry, RateWindows
from composer.spending import Hold, Spending, Spent
from experts_registry.errors import OptionError

__all__ = ["Admission", "Reservation"]

_THREADS = 8


class Admission:
    """Admits requests against the limits of their keys.

    Money is set aside in the database, for all processes, mostly for several calls at once
    (`composer.leases`); requests and tokens a minute count in this process alone
    (`composer.rates` says why). The key itself was checked by `KeyStore.authenticate`.

    Args:
        where: the database of the keys.
        spending: in place of the one in that database.
        rates: in place of windows by the system's clock.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        spending: Spending | None = None,
        rates: RateWindows | None = None,
    ) -> None:
        self.spending = spending or Spending(where)
        self.rates = rates or RateWindows()
        self._leases = Leases(self.spending)
        # Of their own: a database that hangs must not take the threads that others work in.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="admission")

    def reserve(self, key: Key, *, model: str, tokens: int, usd: float) -> "Reservation":
        """Admit a request.

        Args:
            key: whose request it is.
            model: the name that the client asked for.
            tokens: the most that it may use, prompt and answer.
            usd: the most that it may cost.

        Raises:
            ForbiddenError: the key may not ask for this model.
            LimitError: a rate or the budget has no room.
            DataError: the database cannot be written.
        """
        return self._held(key, self._enter(key, model, tokens), usd)

    async def areserve(self, key: Key, *, model: str, tokens: int, usd: float) -> "Reservation":
        """Async twin of `reserve`: only a key whose budget is nearly used up takes a thread."""
        entry = self._enter(key, model, tokens)
        if key.usd is None:
            return Reservation(self, key, entry, None)
        try:
            claim = self._leases.take(key, usd)
        except OptionError:
            self.rates.leave(key.id, entry)
            raise
        if claim is not None:
            return Reservation(self, key, entry, claim)
        errand = _Errand()
        try:
            await self.in_thread(lambda: errand.done(self._held(key, entry, usd)))
        except asyncio.CancelledError:
            if (reservation := errand.abandoned()) is not None:
                self._threads.submit(reservation.release)
            raise
        return errand.taken()

    def spent(self, key: Key) -> Spent:
        """Return what a key has spent and set aside in its current period."""
        return self._leases.spent(key)

    def charge(
        self, key: Key, entry: Entry, hold: Hold | Claim | None, tokens: int, usd: float
    ) -> None:
        """End a reservation with what the request did use; only a `Hold` needs the database."""
        self.rates.correct(key.id, entry, tokens)
        match hold:
            case Hold():
                self.spending.settle(hold, usd)
            case Claim():
                self._leases.settle(hold, usd)
            case None if usd > 0:
                self._leases.spend(key, usd)

    def in_thread(self, work: Callable[[], None]) -> "asyncio.Future[None]":
        """Begin at once, off the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Finish what was begun and close the connections."""
        self._threads.shutdown()
        self._leases.close()
        self.spending.close()

    def _enter(self, key: Key, model: str, tokens: int) -> Entry:
        key.require_model(model)
        if tokens < 0:
            raise OptionError(f"tokens: {tokens} is below 0; use 0 or more")
        return self.rates.enter(key.id, tokens, rpm=key.rpm, tpm=key.tpm)

    def _held(self, key: Key, entry: Entry, usd: float) -> "Reservation":
        with self._leaving(key, entry):
            hold = None if key.usd is None else self._leases.reserve(key, usd)
        return Reservation(self, key, entry, hold)

    @contextmanager
    def _leaving(self, key: Key, entry: Entry) -> Iterator[None]:
        """Take a request out of its minute again where its budget refuses it."""
        try:
            yield
        except BaseException:
            self.rates.leave(key.id, entry)
            raise


class Reservation:
    """What one request may use; settle or release it. Only the first of these counts.

    A database that refuses to settle (`DataError`) keeps the money set aside until the
    reservation expires.
    """

    def __init__(
        self, admission: Admission, key: Key, entry: Entry, hold: Hold | Claim | None
    ) -> None:
        self.key = key
        self._admission, self._entry, self._hold = admission, entry, hold
        self._is_open = True
        self._lock = threading.Lock()

    def settle(self, *, tokens: int, usd: float) -> None:
        """Charge what the request did use, be it less or more than was reserved."""
        if self._closes():
            self._admission.charge(self.key, self._entry, self._hold, tokens, usd)

    def release(self) -> None:
        """Give everything back: no expert was asked. The request still counts in its minute."""
        self.settle(tokens=0, usd=0.0)

    async def asettle(self, *, tokens: int, usd: float) -> None:
        """Async twin of `settle`; it ends also where the caller is cancelled."""
        if not isinstance(self._hold, Hold):  # nothing for the database
            self.settle(tokens=tokens, usd=usd)
        elif self._closes():  # now, so that a release after a cancelled settle comes too late
            charge = partial(self._admission.charge, self.key, self._entry, self._hold, tokens, usd)
            await asyncio.shield(self._admission.in_thread(charge))

    async def arelease(self) -> None:
        """Async twin of `release`; it ends also where the caller is cancelled."""
        await self.asettle(tokens=0, usd=0.0)

    def _closes(self) -> bool:
        with self._lock:
            was_open, self._is_open = self._is_open, False
            return was_open


class _Errand:
    """A reservation on its way from a thread to a caller who may hang up at any moment."""

    def __init__(self) -> None:
        self._reservation: Reservation | None = None
        self._is_wanted = True
        self._lock = threading.Lock()

    def done(self, reservation: Reservation) -> None:
        """Hand over what was reserved, in the thread; give it back if nobody waits any more."""
        with self._lock:
            self._reservation = reservation
            is_wanted = self._is_wanted
        if not is_wanted:
            reservation.release()

    def abandoned(self) -> Reservation | None:
        """Wait no more; return what is there already, for the caller to give back."""
        with self._lock:
            self._is_wanted = False
            return self._reservation

    def taken(self) -> Reservation:
        """Return what was reserved."""
        if self._reservation is None:
            raise RuntimeError("reserve: is not done")
        return self._reservation
