"""From a request to its plan: who is asked, how, and until when."""

import asyncio
import time

from composer.deadlines import deadline
from composer.exploring import Exploration
from composer.plan import Plan
from composer.routing import Routing
from composer.standing import Standings
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
    """

    def __init__(
        self, registry: Registry, routing: Routing, exploration: Exploration, standings: Standings
    ) -> None:
        self._registry, self._routing = registry, routing
        self._exploration, self._standings = exploration, standings

    def choose(self, prompt: Prompt, model: str) -> Decision:
        """Say whom to ask, without exploring; errors as of `Routing.decide`."""
        known = self._standings
        return self._routing.decide(prompt, model, avoid=known.left_alone(), load=known.load)

    async def plan(self, prompt: Prompt, model: str) -> Plan:
        """Decide whom to ask, exploring where the composition wants it.

        Raises:
            UnknownNameError: no composition or expert is called ``model``.
            PromptError: the query is empty or too long, or no expert may be asked.
            ExpertTimeoutError: the decision took all the time that the request has.
        """
        began = time.perf_counter()
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
            decision = self._decide(prompt, model)
        else:  # an encoder computes for milliseconds, the first call loads it for seconds
            async with deadline(who, seconds, of="decision"):
                decision = await asyncio.to_thread(self._decide, prompt, model)
        return Plan(
            prompt=prompt.limited(max_tokens=composition.limits.max_tokens),
            decision=decision,
            model=composition.name,
            who=who,
            seconds=seconds,
            strategy=composition.strategy,
            fallbacks=composition.fallbacks,
            began=began,
        )

    def _decide(self, prompt: Prompt, model: str) -> Decision:
        composition = self._routing.composition(model)
        return self._exploration.decide(self.choose(prompt, model), composition, prompt)
