"""POST /v1/route, POST /v1/feedback, GET /v1/decisions/{id}."""

from typing import Literal

from pydantic import Field

from composer import trace
from composer.decisions import Logged
from composer.http.openapi.chat import CreateChatCompletionRequest
from composer.http.openapi.operation import POSTING, READING, Operation
from composer.http.openapi.shape import Shape, shape_of
from experts_registry.types import Usage
from routers import arms, decision

__all__ = ["DECISION", "FEEDBACK", "ROUTE"]

Candidate = shape_of(decision.Candidate, "Candidate")
RatedArm = shape_of(arms.RatedArm, "RatedArm", arm=str)
Found = shape_of(arms.Found, "Found")
Retrieval = shape_of(
    arms.RetrievalDecision,
    "Retrieval",
    arms=list[RatedArm],  # type: ignore[valid-type]
    found=list[Found],  # type: ignore[valid-type]
)
_DECISION = {
    "candidates": list[Candidate],  # type: ignore[valid-type]
    "otherwise": str | None,
    "retrieval": Retrieval | None,
}
Decision = shape_of(decision.Decision, "Decision", without={"weights"}, **_DECISION)
RouteResponse = shape_of(
    decision.Decision, "RouteResponse", without={"weights"}, **_DECISION, model=str, generation=int
)
Step = shape_of(trace.Step, "Step", usage=shape_of(Usage, "StepUsage"))
LoggedDecision = shape_of(
    Logged,
    "LoggedDecision",
    object=Literal["decision"],
    decision=Decision | None,
    steps=list[Step],  # type: ignore[valid-type]
)


class FeedbackRequest(Shape):
    """A grade of an answer."""

    id: str = Field(description="Of a completion.")
    quality: float = Field(ge=0, le=1, description="From 0, bad, to 1, perfect.")


class FeedbackResponse(Shape):
    """What was noted."""

    id: str
    object: Literal["feedback"]
    expert: str
    quality: float
    time: str


ROUTE = Operation(
    id="createRoute",
    summary="Say whom a conversation would ask, and why, without asking.",
    ask=CreateChatCompletionRequest,
    answer=RouteResponse,
    errors=(*POSTING, 404, 422),
)
FEEDBACK = Operation(
    id="createFeedback",
    summary="Take a grade of an answer.",
    ask=FeedbackRequest,
    answer=FeedbackResponse,
    errors=(*POSTING, 404),
)
DECISION = Operation(
    id="retrieveDecision",
    summary="Tell what the decision log knows of a request, named by its x-request-id.",
    answer=LoggedDecision,
    errors=(*READING, 404),
)
