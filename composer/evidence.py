"""What a caller wants of retrieval, and what a request got of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from composer.grounding import grounded
from composer.stores.retrieved import Retrieved
from experts_registry.errors import OptionError
from experts_registry.passages import Passage
from experts_registry.types import Prompt
from routers.arms import Found, RetrievalDecision

__all__ = ["MODES", "Evidence", "Mode", "Wish", "failed", "reasons"]

Mode = Literal["auto", "never", "always"]
MODES: tuple[Mode, ...] = ("auto", "never", "always")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller wants of retrieval.

    Args:
        mode: replaces the ``when`` of the file; None leaves it.
        stores: those that the caller may read; None is all.

    Raises:
        OptionError: there is no such mode, or a text is given for the stores.
    """

    mode: Mode | None = None
    stores: Collection[str] | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise OptionError(f"retrieval: {self.mode!r} is not one of {', '.join(MODES)}")
        if isinstance(self.stores, str):  # every part of which would be the name of a store
            raise OptionError(f"stores: {self.stores!r} is a text; use a set of names")

    def readable(self, stores: Sequence[str]) -> tuple[str, ...]:
        """Return those of these stores that the caller may read."""
        return tuple(s for s in stores if self.stores is None or s in self.stores)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Passages for a request, and why these, or why none.

    Args:
        decision: whether, from where and why.
        passages: best first; none where it was decided so, or where retrieving failed.
    """

    decision: RetrievalDecision
    passages: tuple[Passage, ...] = ()

    @classmethod
    def none(cls, reason: str, stage: str) -> "Evidence":
        """Answer without passages."""
        return cls(decision=RetrievalDecision(store=None, reason=reason, stage=stage))

    @classmethod
    def of(cls, retrieved: Retrieved, decision: RetrievalDecision) -> "Evidence":
        """Answer from what a store had, as it was decided."""
        found = tuple(Found(p.id, p.score) for p in retrieved.passages)
        decision = replace(
            decision,
            store=retrieved.store,
            retrievers=retrieved.decision.experts,
            found=found,
        )
        return cls(decision=decision, passages=retrieved.passages)

    def before(self, prompt: Prompt) -> Prompt:
        """Return a prompt with all the passages: the most that an expert is sent of them."""
        return grounded(prompt, self.passages)[0]

    def dropped(self, reason: str) -> "Evidence":
        """Return what is left where there are no passages, or they cannot be used."""
        return Evidence(decision=failed(self.decision, reason))


def reasons(*every: str) -> str:
    """Join what there is to say of a decision."""
    return "; ".join(filter(None, every))


def failed(decision: RetrievalDecision, reason: str) -> RetrievalDecision:
    """Return a decision that came to nothing; what was weighed for it is still told."""
    return replace(decision, store=None, k=0, stage="failure", reason=reason)
