"""The periods that budgets are for: UTC days, UTC months, or for ever."""

from datetime import datetime, timedelta
from typing import Literal

__all__ = ["Period", "left_of", "named"]

Period = Literal["day", "month", "total"]


def named(now: datetime, per: Period) -> str:
    """Name the period that a moment lies in; periods change at midnight UTC."""
    return "total" if per == "total" else now.date().isoformat()[: 10 if per == "day" else 7]


def left_of(now: datetime, per: Period) -> float | None:
    """Return the seconds until the next period."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return (today + timedelta(days=1) - now).total_seconds()
    if per == "month":
        return ((today.replace(day=1) + timedelta(days=32)).replace(day=1) - now).total_seconds()
    return None
