"""Numbers and verdicts in words, the same on every page."""

from composer.report import Estimate, Interval, Verdict
from composer.statistics import FEWEST

__all__ = ["compared", "in_money", "number", "signed", "spread", "told"]

_WORDS = {
    "better": "better",
    "worse": "worse",
    "not significant": "no difference could be shown",
}


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign, or a dash where there is none."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


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
    return _WORDS[found] if queries >= FEWEST else f"fewer than {FEWEST} queries say nothing"


def in_money(cost: float | None, unit: str) -> str:
    """Return what a query costs on average; money for a thousand, which people can imagine."""
    if cost is None:
        return "unknown"
    if unit == "usd":
        return f"{1000 * cost:.3g} USD per 1,000 queries"
    named = {"B params": " billion active parameters", "s": " seconds"}
    return f"{cost:.3g}{named.get(unit, f' {unit}'.rstrip())}"
