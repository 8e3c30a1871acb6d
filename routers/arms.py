"""What one may do with a query: ask an expert as it is, or with passages from a store.

Retrieval is an attribute of the arm (ExpertRAG, Gumaan, arXiv:2504.08744): outcomes name an arm
``expert`` or ``expert+store``, and whatever learns from outcomes learns when to retrieve.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

__all__ = ["Arm", "Found", "RatedArm", "RetrievalDecision"]


class Arm(NamedTuple):
    """An expert, and the store that it is given passages from; None is without any."""

    expert: str
    store: str | None = None

    def __str__(self) -> str:
        return self.expert if self.store is None else f"{self.expert}+{self.store}"

    @classmethod
    def of(cls, name: str) -> Self:
        """Read the name of an arm; no expert's or store's name holds a plus sign."""
        expert, _, store = name.partition("+")
        return cls(expert, store or None)


class RatedArm(NamedTuple):
    """An arm with what is expected of it.

    Args:
        arm: what is done.
        quality: expected, in [0, 1].
        error: standard error of it.
        cost: of retrieving and of reading the passages, in quality, as it was weighed.
    """

    arm: Arm
    quality: float
    error: float
    cost: float


class Found(NamedTuple):
    """A passage without its text: what a log may keep of it."""

    id: str
    score: float


@dataclass(frozen=True, kw_only=True)
class RetrievalDecision:
    """Whether passages are retrieved for a query, from where, and why.

    Args:
        store: where from; None is to answer without.
        k: how many passages.
        reason: one sentence for people.
        stage: who decided: ``request`` (the caller), ``file`` (its ``when``), ``gate``
            (by the question), ``draft`` (by the uncertainty of a short draft), ``guard`` (the gate
            has shown no skill) or ``failure`` (retrieving failed or found nothing).
        arms: what the gate compared, best first.
        retrievers: who searched.
        found: what was found, best first; an expert with a small window is given fewer.
        seconds: what deciding and searching took.
    """

    store: str | None
    k: int = 0
    reason: str = ""
    stage: str = "file"
    arms: tuple[RatedArm, ...] = ()
    retrievers: tuple[str, ...] = ()
    found: tuple[Found, ...] = ()
    seconds: float = 0.0

    @property
    def is_retrieving(self) -> bool:
        """Whether passages are retrieved."""
        return self.store is not None

    @property
    def is_wanted(self) -> bool:
        """Whether passages were to be retrieved, also where that failed."""
        return self.is_retrieving or self.stage == "failure"
