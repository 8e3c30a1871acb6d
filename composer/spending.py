"""USD budgets of API keys, in a database: reserved before a call, settled after it.

A reservation is one conditional UPDATE, ``spent + reserved + amount <= budget``, so that neither
threads nor processes can spend the same money twice. Sums are whole billionths of a USD.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from composer.amounts import nano_usd
from composer.database import Database
from composer.periods import Period, left_of, named
from experts_registry.errors import LimitError

__all__ = ["Change", "Hold", "Spending", "Spent", "Written"]

logger = logging.getLogger(__name__)
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

# Built once: building and caching an expression costs as much as SQLite takes to run it.
_ROW = sa.update(_SUMS).where(
    _SUMS.c.key_id == sa.bindparam("key"), _SUMS.c.period == sa.bindparam("in_period")
)
_NANO = sa.bindparam("nano", type_=sa.BigInteger)
_RESERVE = _ROW.where(
    _SUMS.c.spent + _SUMS.c.reserved + _NANO <= sa.bindparam("most", type_=sa.BigInteger)
).values(reserved=_SUMS.c.reserved + _NANO)
_SETTLE = _ROW.values(
    spent=_SUMS.c.spent + _NANO,
    reserved=_SUMS.c.reserved - sa.bindparam("held", type_=sa.BigInteger),
)
_BEGIN, _HOLD = sa.insert(_SUMS), sa.insert(_HOLDS)
_DROP = sa.delete(_HOLDS).where(_HOLDS.c.id == sa.bindparam("hold"))
_KEEP = (
    sa.update(_HOLDS)
    .where(_HOLDS.c.id == sa.bindparam("hold"))
    .values(
        nano_usd=sa.bindparam("left", type_=sa.BigInteger),
        expires=sa.bindparam("until", type_=sa.Double),
    )
)
_READ = sa.select(_SUMS.c.spent, _SUMS.c.reserved).where(
    _SUMS.c.key_id == sa.bindparam("key"), _SUMS.c.period == sa.bindparam("in_period")
)
_DEAD = sa.select(_HOLDS).where(
    _HOLDS.c.key_id == sa.bindparam("key"), _HOLDS.c.expires < sa.bindparam("now")
)


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


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to become of a reservation for many calls; sums in billionths of a USD.

    Args:
        key_id: whose it is.
        period: that is charged.
        spent: to charge.
        hold_id: of the reservation; None where there is none yet.
        released: what of it is no longer set aside, ``spent`` included.
        held: what stays set aside.
        wanted: to be set aside beside that.
        most: what all sums of the period may come to with it.
    """

    key_id: str
    period: str
    spent: int
    hold_id: str | None
    released: int
    held: int
    wanted: int
    most: int


@dataclass(frozen=True)
class Written:
    """What became of a change: the reservation, if there is one, and by how much it grew."""

    hold_id: str | None
    grown: int = 0


class _NotBegunError(Exception):
    """A period has no row yet."""


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
        self._expired = 0

    @property
    def expired(self) -> int:
        """How many reservations were given back because nobody settled them in time."""
        return self._expired

    def reserve(self, key_id: str, usd: float, *, budget: float, per: Period) -> Hold:
        """Set money aside, unless that exceeds the budget of this period.

        Raises:
            LimitError: it would.
            DataError: the database cannot be written.
        """
        nano, most = nano_usd(usd), nano_usd(budget, ROUND_FLOOR)
        now = datetime.fromtimestamp(self._clock(), UTC)
        hold = Hold(uuid4().hex, key_id, named(now, per), nano)
        if nano > most:
            raise _refusal(usd, budget, per, None)
        if self._hold(hold, most) or (self._made_room(hold) and self._hold(hold, most)):
            return hold
        raise _refusal(usd, budget, per, left_of(now, per))

    def settle(self, hold: Hold, usd: float) -> None:
        """Turn a reservation into what the call did cost, also where that is more."""
        self._end(hold, nano_usd(usd))

    def write(self, changes: Sequence[Change]) -> list[Written]:
        """Make changes in one transaction.

        Raises:
            DataError: the database cannot be written; then nothing was.
        """
        if not changes:
            return []
        try:
            with self._database.writing() as connection:
                return [self._changed(connection, change) for change in changes]
        except _NotBegunError as missing:
            self._begin(*missing.args)
        return self.write(changes)

    def spent(self, key_id: str, *, per: Period = "total") -> Spent:
        """Return what a key has spent and set aside in this period."""
        if not self._database.exists():
            return Spent()
        with self._database.reading() as connection:
            sums = {"key": key_id, "in_period": self.period(per)}
            row = connection.execute(_READ, sums).first()
        return Spent(*(nano / 1e9 for nano in row)) if row else Spent()

    def period(self, per: Period) -> str:
        """Name the current period."""
        return named(datetime.fromtimestamp(self._clock(), UTC), per)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    # -- inside ---------------------------------------------------------------------------------

    def _hold(self, hold: Hold, most: int) -> bool:
        sums = {"key": hold.key_id, "in_period": hold.period, "nano": hold.nano_usd, "most": most}
        row = {**vars(hold), "expires": self._clock() + self._hold_seconds}
        with self._database.writing() as connection:
            if not connection.execute(_RESERVE, sums).rowcount:
                return False
            connection.execute(_HOLD, row)
            return True

    def _made_room(self, hold: Hold) -> bool:
        """Begin the period's row, or give dead reservations back; tell whether one was done."""
        sums = {"key": hold.key_id, "in_period": hold.period}
        with self._database.reading() as connection:
            is_new = connection.execute(_READ, sums).first() is None
            dead = connection.execute(_DEAD, {"key": hold.key_id, "now": self._clock()}).all()
        if is_new:
            self._begin(hold.key_id, hold.period)
        for row in dead:
            self._end(Hold(*row[:4]), 0, is_dead=True)
        return is_new or bool(dead)

    def _end(self, hold: Hold, nano: int, *, is_dead: bool = False) -> None:
        """Delete a reservation and count what it came to."""
        sums = {"key": hold.key_id, "in_period": hold.period, "nano": nano}
        with self._database.writing() as connection:
            gone = connection.execute(_DROP, {"hold": hold.id}).rowcount
            # If another process took it for dead, nothing is set aside for it any more.
            if gone or not is_dead:
                connection.execute(_SETTLE, sums | {"held": hold.nano_usd if gone else 0})
        if gone and is_dead:
            self._expired += 1
            logger.warning(
                "key %s: %.9g USD that were set aside are given back: their call did not end "
                "within %g s, so its process has died; what it cost is not counted",
                *(hold.key_id, hold.nano_usd / 1e9, self._hold_seconds),
            )

    def _begin(self, key_id: str, period: str) -> None:
        row = {"key_id": key_id, "period": period, "spent": 0, "reserved": 0}
        with suppress(IntegrityError):  # somebody else began it in between
            self._execute(_BEGIN, row)

    def _execute(self, statement: sa.Update | sa.Insert, values: dict[str, Any]) -> int:
        with self._database.writing() as connection:
            return connection.execute(statement, values).rowcount

    def _changed(self, connection: sa.Connection, change: Change) -> Written:
        hold, until = change.hold_id, self._clock() + self._hold_seconds
        released = change.released
        if hold is not None:
            kept = {"hold": hold, "left": change.held, "until": until}
            statement, values = (_KEEP, kept) if change.held else (_DROP, {"hold": hold})
            if not connection.execute(statement, values).rowcount:
                hold, released = None, 0  # another process took it for dead
            elif not change.held:
                hold = None
        sums = {"key": change.key_id, "in_period": change.period}
        settled = sums | {"nano": change.spent, "held": released}
        if not connection.execute(_SETTLE, settled).rowcount:
            raise _NotBegunError(change.key_id, change.period)
        grown = sums | {"nano": change.wanted, "most": change.most}
        if not change.wanted or not connection.execute(_RESERVE, grown).rowcount:
            return Written(hold)
        if hold is not None:
            left = change.held + change.wanted
            connection.execute(_KEEP, {"hold": hold, "left": left, "until": until})
            return Written(hold, change.wanted)
        new = Hold(uuid4().hex, change.key_id, change.period, change.wanted)
        connection.execute(_HOLD, {**vars(new), "expires": until})
        return Written(new.id, change.wanted)


def _refusal(usd: float, budget: float, per: Period, wait: float | None) -> LimitError:
    of = "in total" if per == "total" else f"a {per}"
    told = "ask the operator for more" if wait is None else "wait for the next period"
    return LimitError(
        f"API key: its budget of {budget:g} USD {of} has no room for a call of up to {usd:g} USD; "
        f"ask for fewer tokens, or {told}",
        "usd",
        wait,
    )
