"""From a request to its plan: who is asked, how, and until when."""

import asyncio
import time
from dataclasses import replace

from composer.deadlines import deadline
from composer.exploring import Exploration
from composer.plan import Plan
from composer.retrieval import Evidence, Retrieval, Wish
from composer.routing import Routing
from composer.standing import Standings
from experts_registry.errors import OptionError
from experts_registry.registry import Registry
from experts_registry.schema import RequestLimits
from experts_registry.types import Prompt
from routers.base import Decision

__all__ = ["Planner"]


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
        """Say whom to ask, without exploring; errors as of `plan`."""
        evidence = await self._evidence(prompt, model, wish, time.perf_counter())
        return await asyncio.to_thread(self.choose_by, prompt, model, evidence)

    async def plan(self, prompt: Prompt, model: str, wish: Wish) -> Plan:
        """Decide whom to ask, exploring where the composition wants it.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            OptionError: passages are wanted, and there is no store to retrieve them from.
            PromptError: the query is empty or too long, or no expert may be asked.
            ExpertTimeoutError: the decision took all the time that the request has.
        """
        began = time.perf_counter()
        evidence = await self._evidence(prompt, model, wish, began)
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
            decision = self._decide(prompt, model, evidence)
        else:  # an encoder computes for milliseconds, the first call loads it for seconds
            left = began + seconds - time.perf_counter()
            async with deadline(who, seconds, left=left, of="decision"):
                decision = await asyncio.to_thread(self._decide, prompt, model, evidence)
        return Plan(
            prompt=prompt.limited(max_tokens=composition.limits.max_tokens),
            decision=decision,
            model=composition.name,
            who=who,
            seconds=seconds,
            strategy=composition.strategy,
            fallbacks=composition.fallbacks,
            passages=() if evidence is None else evidence.passages,
            began=began,
        )

    async def _evidence(
        self, prompt: Prompt, model: str, wish: Wish, began: float
    ) -> Evidence | None:
        composition = self._routing.composition(model)
        if composition is None:
            if wish.mode == "always":
                raise OptionError(
                    f"retrieval: {model!r} is one expert and has no store; ask a composition with "
                    "'retrieval:', or leave this out"
                )
            return None
        left = began + composition.limits.seconds - time.perf_counter()
        evidence = await self._retrieval.evidence(prompt.query, composition, wish, left)
        if evidence is None or not evidence.passages:
            return evidence
        if self._routing.can_pay(composition, prompt, evidence.before(prompt)):
            return evidence
        return evidence.dropped("with the passages nobody is within limits.usd_per_request")

    def choose_by(self, prompt: Prompt, model: str, evidence: Evidence | None) -> Decision:
        """Say whom to ask, without exploring, by what was retrieved already; computes."""
        known = self._standings
        decision = self._routing.decide(
            prompt, model, avoid=known.left_alone(), load=known.load, evidence=evidence
        )
        return decision if evidence is None else replace(decision, retrieval=evidence.decision)

    def _decide(self, prompt: Prompt, model: str, evidence: Evidence | None) -> Decision:
        composition = self._routing.composition(model)
        decision = self.choose_by(prompt, model, evidence)
        sent = prompt if evidence is None else evidence.before(prompt)
        return self._exploration.decide(decision, composition, sent)
