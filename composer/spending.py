"""USD budgets of API keys, in a database: reserved before a call, settled after it.

A reservation is one conditional UPDATE, ``spent + reserved + amount <= budget``, so that neither
threads nor processes can spend the same money twice. Sums are whole billionths of a USD.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Literal
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from composer.database import Database
from experts_registry.errors import LimitError, OptionError

__all__ = ["Hold", "Period", "Spending", "Spent"]

Period = Literal["day", "month", "total"]

_METADATA = sa.MetaData()
_SUMS = sa.Table(
    "spending",
    _METADATA,
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("period", sa.String(10), primary_key=True),  # 2026-11-25, 2026-11 or total
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
)
_HOLDS = sa.Table(
    "holds",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("key_id", sa.String(32), nullable=False),
    sa.Column("period", sa.String(10), nullable=False),
    sa.Column("nano_usd", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),  # seconds since 1970
)
sa.Index("holds_by_key", _HOLDS.c.key_id, _HOLDS.c.expires)


@dataclass(frozen=True)
class Hold:
    """Money that is set aside for one call."""

    id: str
    key_id: str
    period: str
    nano_usd: int


@dataclass(frozen=True)
class Spent:
    """USD of a key in one period: paid, and set aside for calls that are running."""

    usd: float = 0.0
    reserved: float = 0.0


class Spending:
    """What every key has spent.

    Args:
        where: a database URL, or the path of an SQLite file.
        hold_seconds: after this a reservation that nobody settled, as its process died, may be
            given to others. A call that lasts longer is charged all the same when it settles,
            but its money may have been promised twice: let no request live longer.
        clock: seconds since 1970.
        busy_seconds: longest wait for another writer of an SQLite file.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        hold_seconds: float = 900.0,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 10.0,
    ) -> None:
        # A power cut may cost the sums of its last seconds; waiting for the disk would cost every
        # request two fsyncs. The end of a process costs nothing.
        tables = (_SUMS, _HOLDS)
        self._database = Database(where, "keys", tables, busy_seconds=busy_seconds, is_synced=False)
        self._hold_seconds, self._clock = hold_seconds, clock

    def reserve(self, key_id: str, usd: float, *, budget: float, per: Period) -> Hold:
        """Set money aside, unless that exceeds the budget of this period.

        Raises:
            LimitError: it would.
            DataError: the database cannot be written.
        """
        nano, most = _nano(usd, ROUND_CEILING), _nano(budget, ROUND_FLOOR)
        now = datetime.fromtimestamp(self._clock(), UTC)
        hold = Hold(uuid4().hex, key_id, _name(now, per), nano)
        if nano > most:
            raise _refusal(usd, budget, per, None)
        if self._hold(hold, most) or (self._made_room(hold) and self._hold(hold, most)):
            return hold
        raise _refusal(usd, budget, per, _rest(now, per))

    def settle(self, hold: Hold, usd: float) -> None:
        """Turn a reservation into what the call did cost, also where that is more."""
        nano = _nano(usd, ROUND_CEILING)
        with self._database.writing() as connection:
            gone = connection.execute(sa.delete(_HOLDS).where(_HOLDS.c.id == hold.id)).rowcount
            # Another process may have taken it for dead; then nothing is set aside any more.
            held = hold.nano_usd if gone else 0
            changed = {"spent": _SUMS.c.spent + nano, "reserved": _SUMS.c.reserved - held}
            connection.execute(_row(hold.key_id, hold.period).values(changed))

    def spend(self, key_id: str, usd: float, *, per: Period = "total") -> None:
        """Note what a key without a budget has spent."""
        nano = _nano(usd, ROUND_CEILING)
        period = _name(datetime.fromtimestamp(self._clock(), UTC), per)
        grown = _row(key_id, period).values(spent=_SUMS.c.spent + nano)
        if not self._execute(grown):
            self._begin(key_id, period)
            self._execute(grown)

    def spent(self, key_id: str, *, per: Period = "total") -> Spent:
        """Return what a key has spent and set aside in this period."""
        if not self._database.exists():
            return Spent()
        period = _name(datetime.fromtimestamp(self._clock(), UTC), per)
        with self._database.reading() as connection:
            query = sa.select(_SUMS.c.spent, _SUMS.c.reserved)
            row = connection.execute(query.where(*_of(key_id, period))).first()
        return Spent(*(nano / 1e9 for nano in row)) if row else Spent()

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    # -- inside ---------------------------------------------------------------------------------

    def _hold(self, hold: Hold, most: int) -> bool:
        nano = hold.nano_usd
        room = _SUMS.c.spent + _SUMS.c.reserved + nano <= most
        grown = _row(hold.key_id, hold.period).where(room)
        row = {**vars(hold), "expires": self._clock() + self._hold_seconds}
        with self._database.writing() as connection:
            if not connection.execute(grown.values(reserved=_SUMS.c.reserved + nano)).rowcount:
                return False
            connection.execute(sa.insert(_HOLDS).values(row))
            return True

    def _made_room(self, hold: Hold) -> bool:
        """Begin the period's row, or give dead reservations back; tell whether one was done."""
        dead = sa.select(_HOLDS).where(
            _HOLDS.c.key_id == hold.key_id, _HOLDS.c.expires < self._clock()
        )
        with self._database.reading() as connection:
            found = sa.select(_SUMS.c.key_id).where(*_of(hold.key_id, hold.period))
            is_new = connection.execute(found).first() is None
            holds = [Hold(*row[:4]) for row in connection.execute(dead)]
        if is_new:
            self._begin(hold.key_id, hold.period)
        for each in holds:
            self._give_back(each)
        return is_new or bool(holds)

    def _give_back(self, hold: Hold) -> None:
        """Give a reservation back, once."""
        gone = sa.delete(_HOLDS).where(_HOLDS.c.id == hold.id)
        freed = _row(hold.key_id, hold.period)
        with self._database.writing() as connection:
            if connection.execute(gone).rowcount:
                connection.execute(freed.values(reserved=_SUMS.c.reserved - hold.nano_usd))

    def _begin(self, key_id: str, period: str) -> None:
        row = {"key_id": key_id, "period": period, "spent": 0, "reserved": 0}
        try:
            self._execute(sa.insert(_SUMS).values(row))
        except IntegrityError:  # somebody else began it in between
            return

    def _execute(self, statement: sa.Update | sa.Insert) -> int:
        with self._database.writing() as connection:
            return connection.execute(statement).rowcount


def _of(key_id: str, period: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _SUMS.c.key_id == key_id, _SUMS.c.period == period


def _row(key_id: str, period: str) -> sa.Update:
    return sa.update(_SUMS).where(*_of(key_id, period))


def _nano(usd: float, rounding: str) -> int:
    """Return whole billionths; the noise of binary fractions, below 1e-12 USD, is not rounded."""
    if not (math.isfinite(usd) and usd >= 0):
        raise OptionError(f"usd: {usd!r} is not an amount; use 0 or more")
    nano = round(Decimal(str(usd)) * 1_000_000_000, 3)
    return int(nano.to_integral_value(rounding))


def _name(now: datetime, per: Period) -> str:
    """Name the period that a moment lies in; periods change at midnight UTC."""
    return {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}", "total": "total"}[per]


def _rest(now: datetime, per: Period) -> float | None:
    """Return the seconds until the next period."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return (today + timedelta(days=1) - now).total_seconds()
    if per == "month":
        return ((today.replace(day=1) + timedelta(days=32)).replace(day=1) - now).total_seconds()
    return None


def _refusal(usd: float, budget: float, per: Period, wait: float | None) -> LimitError:
    of = "in total" if per == "total" else f"a {per}"
    told = "ask the operator for more" if wait is None else "wait for the next period"
    return LimitError(
        f"API key: its budget of {budget:g} USD {of} has no room for a call of up to {usd:g} USD; "
        f"ask for fewer tokens, or {told}",
        "usd",
        wait,
    )
