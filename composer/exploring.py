"""Explore for the compositions that ask for it, on the day's purse in the feedback store."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from composer.eligible import expected_cost
from experts_registry.errors import DataError
from experts_registry.registry import Registry
from experts_registry.schema import Composition
from experts_registry.types import Prompt
from routers.decision import Decision
from routers.exploration import Explorer

if TYPE_CHECKING:
    from composer.feedback_store import FeedbackStore

__all__ = ["Exploration"]

logger = logging.getLogger(__name__)


class Exploration:
    """Replaces a share of the decisions of a registry's compositions; safe from any thread.

    Args:
        registry: knows the prices.
        store: opens the feedback store, where the day's sum is kept.
    """

    def __init__(self, registry: Registry, store: Callable[[], "FeedbackStore"]) -> None:
        self._registry, self._store = registry, store
        self._explorers: dict[str, Explorer] = {}
        self._lock = threading.Lock()

    def decide(
        self, decision: Decision, composition: Composition | None, prompt: Prompt
    ) -> Decision:
        """Return the decision, or one that asks another expert first.

        Where the store cannot be used the router's decision stands: an answer matters more.
        """
        if composition is None or composition.explore is None:
            return decision
        with self._lock:
            explorer = self._explorers.get(composition.name)
            if explorer is None:
                explorer = Explorer(**composition.explore.model_dump())
                self._explorers[composition.name] = explorer
        prompt = prompt.limited(max_tokens=composition.limits.max_tokens)
        usd = {
            c.expert: expected_cost(self._registry.experts[c.expert], prompt)
            for c in decision.candidates
            if c.expert in self._registry.experts
        }
        try:
            return explorer.choose(decision, self._store().purse(composition.name), usd=usd)
        except DataError as error:
            logger.warning("composition %s does not explore: %s", composition.name, error)
            return decision
