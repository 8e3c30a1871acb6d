"""A decision as it is written."""

from typing import Any

from composer.http.openapi.shape import Shape, shape_of
from routers import arms, decision

__all__ = ["Decision", "decision_shape"]

_Candidate = shape_of(decision.Candidate, "Candidate")
_RatedArm = shape_of(arms.RatedArm, "RatedArm", arm=str)
_Found = shape_of(arms.Found, "FoundPassageScore")
_Retrieval = shape_of(
    arms.RetrievalDecision,
    "RetrievalDecision",
    arms=list[_RatedArm],  # type: ignore[valid-type]
    found=list[_Found],  # type: ignore[valid-type]
)


def decision_shape(name: str, **fields: Any) -> type[Shape]:
    """Describe a decision with further fields beside it."""
    return shape_of(
        decision.Decision,
        name,
        without={"weights"},
        candidates=list[_Candidate],  # type: ignore[valid-type]
        otherwise=str | None,
        retrieval=_Retrieval | None,
        **fields,
    )


Decision = decision_shape("Decision")
