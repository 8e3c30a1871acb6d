"""How answers are composed from experts."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from experts_registry.errors import (
    ContextLengthError,
    ExpertBusyError,
    ExpertReplyError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
)
from experts_registry.types import Generation, Prompt
from routers.base import Decision

__all__ = ["FAILOVER", "Call", "Single", "Strategy", "order_of_call"]

logger = logging.getLogger(__name__)

Call = Callable[[str, Prompt], Awaitable[Generation]]
# Failures that another expert need not share. A refused request would be refused again.
FAILOVER = (
    ContextLengthError,
    ExpertBusyError,
    ExpertReplyError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
)


class Strategy(Protocol):
    """Compose one answer; ``call`` asks one expert and keeps the books."""

    async def __call__(self, prompt: Prompt, decision: Decision, call: Call) -> Generation:
        """Answer a prompt."""
        ...


def order_of_call(decision: Decision, attempts: int) -> list[str]:
    """List the experts to try: the chosen ones, then the next best that may be asked."""
    spare = [c.expert for c in decision.candidates if c.excluded is None]
    return list(dict.fromkeys([*decision.experts, *spare]))[:attempts]


@dataclass(frozen=True, kw_only=True)
class Single:
    """Ask the primary; where it cannot be reached, ask the next best expert."""

    attempts: int = 2

    async def __call__(self, prompt: Prompt, decision: Decision, call: Call) -> Generation:
        """Answer a prompt."""
        *spare, last = order_of_call(decision, self.attempts)
        for expert in spare:
            try:
                return await call(expert, prompt)
            except FAILOVER as error:
                # Without its text: an upstream may repeat the prompt in it.
                kind = type(error).__name__
                logger.warning("expert %s failed (%s), asking the next best", expert, kind)
                logger.debug("expert %s: %s", expert, error)
        return await call(last, prompt)
