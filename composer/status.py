"""How an expert is doing, for people and monitors that watch it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["BreakerState", "ExpertStatus", "Tier"]

BreakerState = Literal["closed", "open", "half-open"]
Tier = Literal["remote", "disk", "host", "device"]


@dataclass(frozen=True, kw_only=True)
class ExpertStatus:
    """One expert at this moment.

    Args:
        tier: where its weights are; ``disk`` also before its first call, ``remote`` on a server.
        in_flight: calls that have begun and not ended, those that wait included.
        waiting: of these, the ones that wait for a turn.
        breaker: ``open`` while it is left alone: it failed too often, or asked for a pause.
    """

    tier: Tier
    in_flight: int
    waiting: int
    breaker: BreakerState
