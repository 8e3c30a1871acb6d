"""Numbers and verdicts in words, the same on every page."""

from composer.report import Estimate, Interval, Verdict
from composer.statistics import FEWEST

__all__ = [
    "compared",
    "in_money",
    "money",
    "money_unit",
    "number",
    "percent",
    "signed",
    "spread",
    "told",
]

_NONE, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_WORDS = {
    "better": "better",
    "worse": "worse",
    "not significant": "no difference shown",
}


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash where there is none."""
    return _NONE if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign, or a dash where there is none."""
    return _NONE if value is None else f"{value:+.{digits}f}".replace("-", _MINUS)


def spread(found: Interval, *, sign: bool = False, digits: int = 3) -> str:
    """Return the ends of an interval."""
    write = signed if sign else number
    return f"{write(found.low, digits)} to {write(found.high, digits)}"


def told(found: Estimate, *, sign: bool = True) -> str:
    """Return a figure with its interval."""
    value = signed(found.value) if sign else number(found.value)
    return f"{value} ({spread(found.interval, sign=sign)})"


def compared(found: Verdict, queries: int) -> str:
    """Return a verdict in words."""
    return _WORDS[found] if queries >= FEWEST else "too few queries"


def percent(value: float | None, *, sign: bool = False, digits: int = 0) -> str:
    """Return a share or a change in per cent, or a dash where there is none."""
    if value is None:
        return _NONE
    return f"{value:{'+' if sign else ''}.{digits}%}".replace("-", _MINUS).replace("%", " %")


def money(cost: float | None, unit: str) -> str:
    """Return the number of a mean cost; see `money_unit` for what it counts."""
    if cost is None:
        return "unknown"
    return f"{cost * (1000 if unit == 'usd' else 1):#.3g}".rstrip(".")


def money_unit(unit: str) -> str:
    """Return what `money` counts; money for a thousand queries, which people can imagine."""
    named = {
        "usd": "USD per 1,000 queries",
        "B params": "billion active parameters",
        "s": "seconds",
    }
    return named.get(unit, unit)


def in_money(cost: float | None, unit: str) -> str:
    """Return what a query costs on average, with its unit."""
    return f"{money(cost, unit)} {money_unit(unit)}".strip()
