"""From a request to its plan: who is asked, how, and until when."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from composer.deadlines import deadline
from composer.evidence import Evidence, Wish
from composer.exploring import Exploration
from composer.plan import Plan
from composer.retrieval import Look, Retrieval, Settled
from composer.routing import Routing
from composer.standing import Standings
from experts_registry.errors import OptionError
from experts_registry.passages import Passage
from experts_registry.registry import Registry
from experts_registry.schema import RequestLimits
from experts_registry.types import Prompt
from routers.base import Decision

if TYPE_CHECKING:
    from composer.weighing import Draft

__all__ = ["Planner"]

_DRAFT_SHARE = 0.2  # of a request's time


class Planner:
    """Plans the requests to one registry generation.

    Args:
        registry: the experts and compositions.
        routing: ranks them.
        exploration: departs from the ranking now and then, where a composition wants it.
        standings: what is known of the experts.
        retrieval: finds passages, where a composition wants them.
    """

    def __init__(
        self,
        registry: Registry,
        routing: Routing,
        exploration: Exploration,
        standings: Standings,
        retrieval: Retrieval,
    ) -> None:
        self._registry, self._routing = registry, routing
        self._exploration, self._standings = exploration, standings
        self._retrieval = retrieval

    def is_searching(self, model: str) -> bool:
        """Tell whether a decision may wait for stores."""
        composition = self._routing.composition(model)
        return composition is not None and composition.retrieval is not None

    async def choose(self, prompt: Prompt, model: str, wish: Wish) -> Decision:
        """Say whom to ask, without exploring and without drafts; errors as of `plan`."""
        look = await self._look(prompt, model, wish, time.perf_counter())
        decision = await asyncio.to_thread(self.choose_by, prompt, model, look)
        return (await self._settled(look, prompt, model, decision, None))[0]

    def choose_by(self, prompt: Prompt, model: str, look: Look | None) -> Decision:
        """Say whom to ask, by what was looked up already; computes."""
        known = self._standings
        return self._routing.decide(
            prompt,
            model,
            avoid=known.left_alone(),
            load=known.load,
            sent=_sent(prompt, look),
            coupling=() if look is None else look.transforms,
        )

    async def plan(
        self,
        prompt: Prompt,
        model: str,
        wish: Wish,
        draft: "Callable[[float], Draft]",
    ) -> Plan:
        """Decide whom to ask, exploring where the composition wants it.

        Args:
            prompt: what is asked.
            model: a composition or an expert.
            wish: what the caller wants of retrieval.
            draft: returns what drafts within so many seconds.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            OptionError: passages are wanted, and there is no store to retrieve them from.
            PromptError: the query is empty or too long, or no expert may be asked.
            ExpertTimeoutError: the decision took all the time that the request has.
        """
        began = time.perf_counter()
        look = await self._look(prompt, model, wish, began)
        composition = self._routing.composition(model)
        if composition is None:
            limits = self._registry.expert(model).limits
            return Plan(
                prompt=prompt,
                decision=self._routing.decide(prompt, model),
                model=model,
                who=f"expert {model!r}",
                seconds=limits.seconds or RequestLimits().seconds,
                began=began,
            )
        who, seconds = f"composition {model!r}", composition.limits.seconds
        if self._routing.is_quick(prompt, model):
            decision = self._decide(prompt, model, look)
        else:  # an encoder computes for milliseconds, the first call loads it for seconds
            left = began + seconds - time.perf_counter()
            async with deadline(who, seconds, left=left, of="decision"):
                decision = await asyncio.to_thread(self._decide, prompt, model, look)
        drafting = draft(_DRAFT_SHARE * seconds)
        decision, passages = await self._settled(look, prompt, model, decision, drafting)
        return Plan(
            prompt=prompt.limited(max_tokens=composition.limits.max_tokens),
            decision=decision,
            model=composition.name,
            who=who,
            seconds=seconds,
            strategy=composition.strategy,
            fallbacks=composition.fallbacks,
            passages=passages,
            began=began,
        )

    async def _look(self, prompt: Prompt, model: str, wish: Wish, began: float) -> Look | None:
        composition = self._routing.composition(model)
        if composition is None:
            if wish.mode == "always":
                raise OptionError(
                    f"retrieval: {model!r} is one expert and has no store; ask a composition with "
                    "'retrieval:', or leave this out"
                )
            return None
        left = began + composition.limits.seconds - time.perf_counter()
        experts = [spec.name for spec in self._routing.candidates(model)]
        look = await self._retrieval.look(prompt.query, composition, wish, experts, left)
        if isinstance(look, Settled):
            return Settled(self._paid(look.evidence, prompt, model, experts))
        return look

    async def _settled(
        self,
        look: Look | None,
        prompt: Prompt,
        model: str,
        decision: Decision,
        draft: "Draft | None",
    ) -> tuple[Decision, tuple[Passage, ...]]:
        """Return the decision with what it says of retrieval, and the passages."""
        if look is None:
            return decision, ()
        evidence = await look.settle(decision.primary, draft)
        evidence = self._paid(evidence, prompt, model, decision.experts)
        return replace(decision, retrieval=evidence.decision), evidence.passages

    def _paid(
        self, evidence: Evidence, prompt: Prompt, model: str, experts: Sequence[str]
    ) -> Evidence:
        """Return evidence without passages where nobody can be paid for reading them."""
        if not evidence.passages:
            return evidence
        if self._routing.can_pay(model, experts, prompt, evidence.before(prompt)):
            return evidence
        return evidence.dropped("with the passages nobody is within limits.usd_per_request")

    def _decide(self, prompt: Prompt, model: str, look: Look | None) -> Decision:
        composition = self._routing.composition(model)
        decision = self.choose_by(prompt, model, look)
        return self._exploration.decide(decision, composition, _sent(prompt, look) or prompt)


def _sent(prompt: Prompt, look: Look | None) -> Prompt | None:
    return look.evidence.before(prompt) if isinstance(look, Settled) else None
