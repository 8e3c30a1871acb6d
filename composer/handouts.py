"""What each expert of a request is given to read: the passages that its window has room for."""

from collections.abc import Sequence
from dataclasses import dataclass

from composer.grounding import grounded, room_for
from experts_registry.passages import Passage
from experts_registry.schema import ExpertSpec
from experts_registry.types import Prompt

__all__ = ["Handout", "Handouts"]


@dataclass(frozen=True, kw_only=True)
class Handout:
    """One call's prompt, and the passages in it.

    Args:
        prompt: with the passages before its question.
        passages: as they are numbered in it, from 1 on.
    """

    prompt: Prompt
    passages: tuple[Passage, ...] = ()


class Handouts:
    """Gives the passages of one request to the experts that come to answer it.

    Args:
        passages: best first.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)
        self._most: dict[str, int] = {}  # passages of an expert that had no room for more

    def of(self, spec: ExpertSpec, prompt: Prompt) -> Handout:
        """Return what an expert is sent: the question, after the passages that fit its window."""
        passages = self._passages[: self._most.get(spec.name)]
        if not passages:
            return Handout(prompt=prompt)
        sent, given = grounded(prompt, passages, tokens=room_for(spec, prompt))
        return Handout(prompt=sent, passages=given)

    def shorten(self, expert: str, given: int) -> bool:
        """Give an expert that found its prompt too long half of what it had; tell if it had any.

        How many tokens a text has is known only to the expert, so what was sent may be too much.
        """
        if given:
            self._most[expert] = given // 2
        return given > 0
