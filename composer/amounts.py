"""Sums of money as whole billionths of a USD, which add up exactly."""

import math
from decimal import ROUND_CEILING, Decimal

from experts_registry.errors import OptionError

__all__ = ["nano_usd"]

_MOST = 2e9  # USD; above every budget, and its billionths still fit 64 bits


def nano_usd(usd: float, rounding: str = ROUND_CEILING) -> int:
    """Return whole billionths; the noise of binary fractions, below 1e-12 USD, is not rounded."""
    if not (math.isfinite(usd) and usd >= 0):
        raise OptionError(f"usd: {usd!r} is not an amount; use 0 or more")
    if rounding == ROUND_CEILING and usd < 100:  # exact in floats, ten times as fast
        return math.ceil(round(usd * 1e9, 3))
    nano = round(Decimal(str(min(usd, _MOST))) * 1_000_000_000, 3)
    return int(nano.to_integral_value(rounding))
