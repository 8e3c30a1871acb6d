"""What a search of a store found."""

from dataclasses import dataclass

from experts_registry.passages import Passage
from routers.decision import Decision

__all__ = ["Retrieved"]


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Passages for a query, and how they were found.

    Args:
        passages: best first.
        store: where they lie.
        decision: which retrievers searched, by which numbers.
        seconds: how long it took.
        similarity: of the query to the best passages, by the first retriever, best first; in
            [-1, 1], and comparable between queries.
    """

    passages: tuple[Passage, ...]
    store: str
    decision: Decision
    seconds: float = 0.0
    similarity: tuple[float, ...] = ()

    @property
    def margin(self) -> float | None:
        """By how much the retriever that was chosen leads the next; None where there is one."""
        asked = [c.quality for c in self.decision.candidates if not c.excluded]
        return asked[0] - asked[1] if len(asked) > 1 else None
