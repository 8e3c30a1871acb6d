"""Spans of time as people write them: 30d, 1h, 15m; and dates."""

import re
from datetime import UTC, date, datetime, timedelta

from experts_registry.errors import OptionError

__all__ = ["ago", "expiry", "span"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``1h``, ``30d`` or ``2w``.

    Raises:
        OptionError: it is none of these.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if not match:
        raise OptionError(f"time: {text!r} is not a span; write for example 15m, 1h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def ago(text: str, now: datetime) -> datetime:
    """Return the moment that a span before now was.

    Raises:
        OptionError: it is no span, or reaches back too far.
    """
    try:
        return now - span(text)
    except OverflowError:
        raise OptionError(f"time: {text!r} reaches back too far; write for example 7d") from None


def expiry(text: str, now: datetime) -> datetime:
    """Read a date, whose last moment (UTC) is meant, or a span from now.

    Raises:
        OptionError: it is neither, or has passed.
    """
    try:
        day = date.fromisoformat(text.strip())
        until = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        try:
            until = now + span(text)
        except (OptionError, OverflowError):
            raise OptionError(
                f"expires: {text!r} is no date and no span; write for example 2027-01-31 or 30d"
            ) from None
    if until <= now:
        raise OptionError(f"expires: {text!r} has passed; name a later one")
    return until
