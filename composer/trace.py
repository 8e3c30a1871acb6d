"""What happened in one request: its steps, and the answer that they led to."""

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from composer.citations import Citation, citations
from composer.estimates import counted, most
from composer.handouts import Handout
from composer.identifiers import new_id
from experts_registry.passages import Passage
from experts_registry.registry import Registry
from experts_registry.types import Generation, Prompt, Usage
from routers.base import Decision

__all__ = ["STOPPED", "Answer", "Ledger", "Step", "Trail"]

STOPPED = "CancelledError"  # the error of a call that was stopped from our side: nobody failed


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call to one expert: what it took, and how it failed if it did.

    Args:
        expert: who was asked.
        seconds: how long it took.
        usage: tokens that were read and written.
        cost: USD by price list.
        error: how it ended in place of an answer.
        is_estimated: whether the tokens are an estimate, because the expert did not tell them.
        passages: how many of what was retrieved the expert was given, best first.
    """

    expert: str
    seconds: float
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    error: str | None = None
    is_estimated: bool = False
    passages: int = 0

    @property
    def has_failed(self) -> bool:
        """Whether the expert failed; not where it was stopped, by a client that left for one."""
        return self.error is not None and self.error.partition(":")[0] != STOPPED


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and why it is this one.

    Args:
        text: the answer.
        decision: whom the router chose, from which numbers.
        steps: every call that was made, failed ones included, in order.
        passages: those that the answering expert was given, as they are numbered in citations.
        generation: the answering expert's own account: finish reason, usage, tool calls.
        registry: digest of the registry generation that answered.
        query: what routers read of the prompt.
        model: the composition or expert that was asked for.
        id: unique; feedback may name the answer by it.
    """

    text: str
    decision: Decision
    steps: tuple[Step, ...]
    generation: Generation
    passages: tuple[Passage, ...] = ()
    registry: str = ""
    query: str = ""
    model: str = ""
    id: str = field(default_factory=new_id)

    @property
    def expert(self) -> str:
        """The expert whose words these are."""
        return self.steps[-1].expert

    @cached_property
    def citations(self) -> tuple[Citation, ...]:
        """Where its text names passages."""
        return citations(self.text, len(self.passages))

    @property
    def is_ungrounded(self) -> bool:
        """Whether it was to be answered from passages, and there were none."""
        retrieval = self.decision.retrieval
        return retrieval is not None and retrieval.is_wanted and not self.passages

    @property
    def cost(self) -> float:
        """USD over all steps."""
        return sum(step.cost for step in self.steps)

    @property
    def seconds(self) -> float:
        """Seconds spent waiting for the experts that answer; `Decision.retrieval` has its own."""
        return sum(step.seconds for step in self.steps)


@dataclass
class Ledger:
    """The steps of one request, priced.

    Args:
        registry: knows the prices.
        query: what routers read of the prompt.
        model: the composition or expert that was asked for.
        id: of the answer to come.
        ends: when each step ended, in `time.perf_counter` seconds.
        passages: those that the last expert that answered was given.
    """

    registry: Registry
    query: str = ""
    model: str = ""
    id: str = field(default_factory=new_id)
    steps: list[Step] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    passages: tuple[Passage, ...] = ()

    def failed(
        self,
        expert: str,
        began: float,
        error: BaseException,
        *,
        begun: Prompt | None = None,
        passages: int = 0,
    ) -> None:
        """Note a call that failed.

        Args:
            expert: who was asked.
            began: in `time.perf_counter` seconds.
            error: how it ended.
            begun: what it had begun to answer, and may charge for without saying how much: then
                the most that it may take is noted.
            passages: how many it was given.
        """
        kind = STOPPED if isinstance(error, GeneratorExit) else type(error).__name__
        usage = Usage() if begun is None else most(self.registry.expert(expert), begun)
        told = f"{kind}: {error}"
        is_estimated = begun is not None
        self._note(began, expert, usage, error=told, is_estimated=is_estimated, passages=passages)

    def answered(
        self, expert: str, began: float, handout: Handout, generation: Generation
    ) -> Generation:
        """Price a call that was answered; return the answer with its tokens counted."""
        usage = counted(handout.prompt, generation)
        is_estimated = usage != generation.usage
        self.passages = handout.passages
        self._note(began, expert, usage, is_estimated=is_estimated, passages=len(handout.passages))
        return replace(generation, usage=usage) if is_estimated else generation

    def answer(self, generation: Generation, decision: Decision) -> Answer:
        """Close the request with what was answered."""
        return Answer(
            text=generation.text,
            decision=decision,
            steps=tuple(self.steps),
            generation=generation,
            passages=self.passages,
            registry=self.registry.digest,
            query=self.query,
            model=self.model,
            id=self.id,
        )

    def _note(self, began: float, expert: str, usage: Usage, **fields: Any) -> None:
        now, price = time.perf_counter(), self.registry.expert(expert).price
        cost = price.cost(usage.prompt_tokens, usage.completion_tokens)
        step = Step(expert=expert, seconds=now - began, usage=usage, cost=cost, **fields)
        self.steps.append(step)
        self.ends.append(now)


@dataclass
class Trail:
    """How far a request came; whoever gives one to a composer can tell of failures too.

    Times are `time.perf_counter` seconds.

    Args:
        began: when the router was asked.
        decided: when it had decided.
        first: when the first piece of a stream came.
        decision: whom it chose; None where it came to no decision.
        ledger: every call that ended.
    """

    began: float = 0.0
    decided: float | None = None
    first: float | None = None
    decision: Decision | None = None
    ledger: Ledger | None = None

    def note(self, began: float, decision: Decision, ledger: Ledger) -> None:
        """Say that it is decided, and where the calls are written down."""
        self.began, self.decided = began, time.perf_counter()
        self.decision, self.ledger = decision, ledger

    @property
    def steps(self) -> tuple[Step, ...]:
        """The calls that have ended so far."""
        return () if self.ledger is None else tuple(self.ledger.steps)

    @property
    def expert(self) -> str:
        """Who answered; else who was asked last, or was to be asked."""
        if steps := self.steps:
            return steps[-1].expert
        return "" if self.decision is None else self.decision.primary
