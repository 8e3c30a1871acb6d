"""A decided request: what to send, to whom, how, and until when."""

import time
from dataclasses import dataclass, field

from experts_registry.passages import Passage
from experts_registry.schema import Fallbacks
from experts_registry.types import Prompt
from routers.base import Decision

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is settled before the first expert is asked.

    Args:
        prompt: with the limits of the composition filled in.
        decision: whom to ask.
        model: the composition or expert that was asked for.
        who: the start of an error message about all of it.
        strategy: how answers are composed.
        fallbacks: whom to ask where an expert fails.
        passages: what was retrieved for it, best first.
        seconds: how long the answer may take.
        began: when the request came, in `time.perf_counter` seconds.
    """

    prompt: Prompt
    decision: Decision
    model: str
    who: str
    seconds: float
    strategy: str = "single"
    fallbacks: Fallbacks = field(default_factory=Fallbacks)
    passages: tuple[Passage, ...] = ()
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds until the deadline; below 0 after it."""
        return self.began + self.seconds - time.perf_counter()
