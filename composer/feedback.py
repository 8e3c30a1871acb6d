"""What people say about answers: one grade per answer, kept where a router can learn from it.

Nothing is written before somebody gives feedback; then the query's text is, as it was asked.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from composer.locations import database_location
from composer.trace import Answer
from experts_registry.errors import DataError, OptionError, UnknownAnswerError, named
from experts_registry.registry import Registry
from experts_registry.types import Generation
from routers.decision import Decision

if TYPE_CHECKING:
    from composer.feedback_store import FeedbackStore

__all__ = ["Feedback", "FeedbackDesk", "feedback_location", "outcome_rows", "query_digest"]

_NOTHING = Generation(text="")
_KEPT_ANSWERS, _KEPT_CHARACTERS = 1000, 8_000_000  # of recent answers, in memory


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One graded answer.

    Args:
        answer_id: of the answer; feedback on the same answer replaces the older one.
        time: when the feedback was given, ISO 8601, UTC.
        query_id: digest of the query, the same wherever and whenever it is asked.
        query: the text that routers read.
        composition: the model name that was asked.
        expert: whose words the answer is.
        category: what the decision took the query for; None where it did not say.
        quality: the grade, in [0, 1].
        grader: who gave it.
        cost: USD of the call to the expert; None where it is not known, as all that follows.
        prompt_tokens: of this call.
        completion_tokens: of this call.
        seconds: of this call.
        propensity: probability with which the expert was chosen; below 1 where one explores.
        registry: digest of the registry that answered.
    """

    answer_id: str
    time: str
    query_id: str
    query: str
    expert: str
    quality: float
    grader: str = "user"
    composition: str = ""
    category: str | None = None
    cost: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    propensity: float | None = None
    registry: str = ""

    def __post_init__(self) -> None:
        is_number = isinstance(self.quality, int | float) and not isinstance(self.quality, bool)
        if not (is_number and 0 <= self.quality <= 1):
            raise OptionError(f"quality: {self.quality!r} is not in [0, 1]; 0 is bad, 1 is perfect")

    @classmethod
    def about(cls, query: str, expert: str, quality: float, **fields: Any) -> "Feedback":
        """Grade an answer that this process did not give; ``fields`` are the others it knows."""
        query = _storable(query)
        if not query.strip() or not expert:
            raise DataError("feedback: needs a query and the expert that answered it")
        known = {"answer_id": uuid4().hex, "time": _now(), "query_id": query_digest(query)}
        return cls(**{**known, **fields}, query=query, expert=expert, quality=quality)

    @classmethod
    def on(cls, answer: Answer, quality: float, *, grader: str = "user") -> "Feedback":
        """Grade an answer."""
        if not answer.steps:
            raise DataError(f"feedback: answer {answer.id!r} came from no expert")
        step, usage = answer.steps[-1], answer.steps[-1].usage
        is_counted = usage.total_tokens > 0 or not answer.text
        return cls.about(
            answer.query,
            answer.expert,
            quality,
            answer_id=answer.id,
            grader=grader,
            composition=answer.model,
            category=_category(answer.decision),
            cost=step.cost if is_counted else None,
            prompt_tokens=usage.prompt_tokens if is_counted else None,
            completion_tokens=usage.completion_tokens if is_counted else None,
            seconds=step.seconds,
            propensity=_propensity(answer.decision, answer.expert),
            registry=answer.registry,
        )

    def regraded(self, quality: float, grader: str) -> "Feedback":
        """Return it with another grade, given now."""
        return replace(self, quality=quality, grader=grader, time=_now())


class FeedbackDesk:
    """Takes feedback on answers, also by their ids, for one registry.

    Of the last 1,000 answers (fewer where their queries are long: 8 million characters in all) it
    keeps in memory what feedback needs, not the texts of the answers. It is safe to use from
    several threads; the store is opened when the first feedback comes.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        answers: int = _KEPT_ANSWERS,
        characters: int = _KEPT_CHARACTERS,
    ) -> None:
        self._registry = registry
        self._recent = _Recent(answers, characters)
        self._store: FeedbackStore | None = None
        self._lock = threading.Lock()

    def join(self, other: "FeedbackDesk") -> None:
        """Know the answers that another desk knows, and share what both are told from now on."""
        self._recent = other._recent

    def remember(self, answer: Answer) -> Answer:
        """Keep what feedback on this answer will need; return the answer."""
        if answer.query.strip() and answer.steps:  # else a router could learn nothing from it
            self._recent.add(_Draft(answer))
        return answer

    def take(self, answer: Answer | str, quality: float, grader: str) -> Feedback:
        """Store a grade of an answer, given as such or by its id.

        Raises:
            OptionError: the quality is not in [0, 1].
            UnknownAnswerError: no such answer is known.
            DataError: the store cannot be written.
        """
        if isinstance(answer, Answer):
            feedback = Feedback.on(answer, quality, grader=grader)
        else:
            feedback = self._draft(answer).regraded(quality, grader)
        self.store.add(feedback)
        return feedback

    @property
    def store(self) -> "FeedbackStore":
        """Where feedback is kept."""
        with self._lock:
            if self._store is None:
                from composer.feedback_store import FeedbackStore

                self._store = FeedbackStore(feedback_location(self._registry))
            return self._store

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _draft(self, answer_id: str) -> Feedback:
        draft = self._recent.get(answer_id) or self.store.get(answer_id)
        if draft is None:
            raise UnknownAnswerError(
                f"feedback: answer {named(answer_id)} is not known; give feedback on one of the "
                f"last {self._recent.answers} answers of this process, or on one that already has "
                "some"
            )
        return draft


@dataclass
class _Draft:
    """What feedback on an answer will need; without the answer's text, which may be long."""

    answer: Answer

    def __post_init__(self) -> None:
        a = self.answer
        self.answer = Answer(
            text=a.text[:1],
            decision=a.decision,
            steps=a.steps,
            generation=_NOTHING,
            registry=a.registry,
            query=a.query,
            model=a.model,
            id=a.id,
        )

    def feedback(self) -> Feedback:
        return Feedback.on(self.answer, 0.0)


class _Recent:
    """Drafts of the last answers, safe from any thread."""

    def __init__(self, answers: int, characters: int) -> None:
        self.answers, self._characters = answers, characters
        self._drafts: OrderedDict[str, _Draft] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def add(self, draft: _Draft) -> None:
        with self._lock:
            self._drafts[draft.answer.id] = draft
            self._size += len(draft.answer.query)
            while len(self._drafts) > self.answers or self._size > self._characters:
                _, oldest = self._drafts.popitem(last=False)
                self._size -= len(oldest.answer.query)

    def get(self, answer_id: str) -> Feedback | None:
        with self._lock:
            draft = self._drafts.get(answer_id)
        return None if draft is None else draft.feedback()


def feedback_location(registry: Registry) -> str:
    """Return the database URL or the absolute SQLite file where feedback is kept."""
    return database_location(registry, "feedback")


def query_digest(query: str) -> str:
    """Identify a query, as a trained router marks those it has seen."""
    return sha256(query.encode("utf-8", "replace")).hexdigest()[:16]


def outcome_rows(feedbacks: Sequence[Feedback]) -> list[dict[str, Any]]:
    """Return feedback as rows of outcomes; several on one (query, expert) cell become their mean.

    A query's category is the one that was told last.
    """
    cells: defaultdict[tuple[str, str], list[Feedback]] = defaultdict(list)
    category: dict[str, str] = {}
    for feedback in sorted(feedbacks, key=lambda f: f.time):
        cells[feedback.query_id, feedback.expert].append(feedback)
        if feedback.category:
            category[feedback.query_id] = feedback.category
    return [
        {
            "query_id": query_id,
            "query": given[-1].query,
            "category": category.get(query_id),
            "expert": expert,
            "quality": _mean(given, "quality"),
            "cost_usd": _mean(given, "cost"),
            "prompt_tokens": _whole(_mean(given, "prompt_tokens")),
            "completion_tokens": _whole(_mean(given, "completion_tokens")),
            "seconds": _mean(given, "seconds"),
            "grader": "feedback",
            "date": given[-1].time,
        }
        for (query_id, expert), given in sorted(cells.items())
    ]


def _mean(given: Sequence[Feedback], name: str) -> float | None:
    values = [value for f in given if (value := getattr(f, name)) is not None]
    return float(np.mean(values)) if values else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _category(decision: Decision) -> str | None:
    """Return what the decision took the query for; None where it did not say, or was in doubt."""
    category = decision.details.get("category")
    is_sure = isinstance(category, str) and not decision.details.get("fallback")
    return category if is_sure else None


def _propensity(decision: Decision, expert: str) -> float | None:
    """Return how likely the expert was chosen; None where it only stood in for a failed one."""
    if expert != decision.primary:
        return None
    return float(decision.details.get("exploration", {}).get("propensity", 1.0))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _storable(text: str) -> str:
    """Replace what databases refuse: halves of surrogate pairs, and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "�")
