"""Whom to ask next where an expert fails: each at most once, so that no chain is a loop."""

from collections.abc import Container, Iterable, Iterator

from composer.faults import is_experts_fault
from experts_registry.errors import (
    ComposerError,
    ContentPolicyError,
    ContextLengthError,
    OffersError,
)
from experts_registry.schema import Fallbacks
from routers.base import Decision

__all__ = ["Chain"]

_MOST = 3  # experts asked for one request where the file names no fallbacks


class Chain:
    """The experts of one request that have not been asked yet, by kind of failure.

    Args:
        decision: the chosen ones, and the ranking of all.
        fallbacks: as the composition names them.
        among: the experts that are enabled.
    """

    def __init__(self, decision: Decision, fallbacks: Fallbacks, among: Container[str]) -> None:
        self._fallbacks, self._among = fallbacks, among
        ranked = [c.expert for c in decision.candidates if c.excluded is None]
        next_best = list(dict.fromkeys([*decision.experts, *ranked]))[:_MOST]
        self._any = self._fallbacks.any or tuple(next_best)
        self._asked: set[str] = set()

    def ask(self, expert: str) -> None:
        """Note that an expert is being asked."""
        self._asked.add(expert)

    @property
    def is_over(self) -> bool:
        """Whether nobody is left to ask after an ordinary failure."""
        return self._first(self._any) is None

    def after(self, error: ComposerError) -> str | None:
        """Return whom to ask after a failure; None where nobody is left, or nobody could help."""
        return self._first(self._for(error))

    def after_filter(self) -> str | None:
        """Return whom to ask where a content filter ended an answer."""
        return self._first(self._fallbacks.content_policy)

    def _first(self, names: Iterable[str]) -> str | None:
        return next((n for n in names if n in self._among and n not in self._asked), None)

    def _for(self, error: ComposerError) -> Iterator[str]:
        if isinstance(error, ContentPolicyError):
            yield from self._fallbacks.content_policy
            return
        if isinstance(error, ContextLengthError):
            yield from self._fallbacks.context_length
        # What one expert has no room for, or does not offer, another one may.
        if is_experts_fault(error) or isinstance(error, ContextLengthError | OffersError):
            yield from self._any
