"""Sums over the decision log, a minute and a name at a time, added up by the database."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

__all__ = ["HUNG_UP", "Sums", "calls_by_expert", "requests_by_model", "sums_of"]

HUNG_UP = 499  # as nginx logs a client that left before it had an answer; nothing failed
_STEP = ("expert", "error", "seconds", "cost")


@dataclass(frozen=True)
class Sums:
    """What some requests, or calls to experts, came to.

    Args:
        requests: how many ended.
        errors: those of them that failed.
        seconds: what those took that were answered.
        usd: what all of them cost.
    """

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    usd: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.seconds + other.seconds,
            self.usd + other.usd,
        )

    @property
    def mean_seconds(self) -> float | None:
        """What one took that was answered; None where none was."""
        answered = self.requests - self.errors
        return self.seconds / answered if answered > 0 else None


def requests_by_model(rows: sa.Table, since: str) -> sa.Select[Any]:
    """Select what was asked for since a moment, by minute and model."""
    return _summed(rows, since, rows.c.model, _failed(rows), rows.c.seconds, rows.c.cost)


def calls_by_expert(rows: sa.Table, since: str, dialect: str) -> sa.Select[Any]:
    """Select the calls to experts since a moment, by minute and expert.

    They are counted by what was called and not by who answered in the end: an expert whose calls
    all fail answers nothing.
    """
    if dialect not in ("sqlite", "postgresql"):  # they disagree on JSON: who answered, then
        return _summed(rows, since, rows.c.expert, _failed(rows), rows.c.seconds, rows.c.cost)
    if dialect == "sqlite":
        steps = sa.func.json_each(rows.c.steps).table_valued("value", name="step")
        texts = {name: sa.func.json_extract(steps.c.value, f"$.{name}") for name in _STEP}
    else:
        array = sa.cast(rows.c.steps, JSONB)
        steps = sa.func.jsonb_array_elements(array).table_valued("value", name="step")
        texts = {name: sa.func.jsonb_extract_path_text(steps.c.value, name) for name in _STEP}
    seconds, cost = (sa.cast(texts[name], sa.Double) for name in ("seconds", "cost"))
    query = _summed(rows, since, texts["expert"], texts["error"].is_not(None), seconds, cost)
    return query.join_from(rows, steps, sa.true())


def _failed(rows: sa.Table) -> Any:
    return sa.and_(rows.c.status >= 400, rows.c.status != HUNG_UP)


def _summed(
    rows: sa.Table, since: str, name: Any, failed: Any, seconds: Any, cost: Any
) -> sa.Select[Any]:
    minute = sa.func.substr(rows.c.time, 1, len("2026-11-25T16:21"))
    took = sa.case((failed, 0.0), else_=sa.func.coalesce(seconds, 0.0))
    return (
        sa.select(
            minute.label("minute"),
            name.label("name"),
            sa.func.count().label("requests"),
            sa.func.sum(sa.case((failed, 1), else_=0)).label("errors"),
            sa.func.sum(took).label("seconds"),
            sa.func.sum(cost).label("usd"),
        )
        .where(rows.c.time >= since)
        .group_by(sa.text("1"), sa.text("2"))
    )


def sums_of(found: sa.Result[Any]) -> Iterator[tuple[str, str, Sums]]:
    """Give minute, name and sums of each row."""
    for row in found:
        sums = Sums(row.requests, int(row.errors), float(row.seconds), float(row.usd))
        yield row.minute, row.name, sums
