"""What may change scores between a router and a selection: the interface, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray
from routers.decision import Prediction

__all__ = ["Context", "ScoreTransform", "transform"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What a transform may look at besides the scores.

    Args:
        x: (n, d) what the router read of the queries.
        prediction: the router's; its columns are those of the scores.
        available: (n, m) whether an expert may be asked.
    """

    x: FloatArray
    prediction: Prediction
    available: NDArray[np.bool_]


class ScoreTransform(Protocol):
    """Change scores (n, m): keep the shape, and leave -inf, an unavailable expert, at -inf."""

    def __call__(self, scores: FloatArray, context: Context) -> FloatArray:
        """Return the new scores (n, m)."""
        ...

    def note(self, before: FloatArray, after: FloatArray, context: Context) -> str | None:
        """Say what was changed for one query, scores (1, m), or None where it changed nothing."""
        ...


def transform(
    scores: FloatArray, context: Context, transforms: Sequence[ScoreTransform]
) -> tuple[FloatArray, list[str]]:
    """Apply transforms in order; for a single query also say what they changed."""
    scores = np.where(context.available, scores, -np.inf)
    notes = []
    for change in transforms:
        before, scores = scores, change(scores, context)
        if len(scores) == 1 and (note := change.note(before, scores, context)):
            notes.append(note)
    return scores, notes
