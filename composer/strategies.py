"""How answers are composed from experts."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from experts_registry.types import Generation, Prompt
from routers.base import Decision

__all__ = ["Call", "Single", "Strategy"]

Call = Callable[[str, Prompt], Awaitable[Generation]]


class Strategy(Protocol):
    """Compose one answer.

    ``call`` asks one expert, or another where that one fails, and keeps the books: a strategy
    sees a failure only where nobody is left to ask.
    """

    async def __call__(self, prompt: Prompt, decision: Decision, call: Call) -> Generation:
        """Answer a prompt."""
        ...


@dataclass(frozen=True, kw_only=True)
class Single:
    """Ask the primary."""

    async def __call__(self, prompt: Prompt, decision: Decision, call: Call) -> Generation:
        """Answer a prompt."""
        return await call(decision.primary, prompt)
