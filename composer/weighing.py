"""Let a gate weigh each expert with and without passages; its verdict on the chosen one stands.

The arms of all experts are one choice (ExpertRAG, Gumaan, arXiv:2504.08744): what passages are
worth to an expert is added to its score before experts are ranked.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from composer.evidence import Evidence, reasons
from composer.searches import Searched, Searches
from experts_registry.retrieval_schema import RetrievalSpec
from experts_registry.types import TokenLogprob
from routers.arms import RetrievalDecision
from routers.gating import Gate
from routers.transforms import ScoreTransform

__all__ = ["Draft", "Weighing", "weighed"]

Draft = Callable[[str], Awaitable[Sequence[TokenLogprob] | None]]
"""Asks an expert for the beginning of an answer without passages; None where it tells nothing."""


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """What a gate thinks of a query.

    Args:
        gate: decides.
        query: the question.
        spec: what the file says.
        must: whether the caller wants passages anyway: then the gate only chooses their store.
        stores: those that may be read, and did not fail.
        searched: what they have, as far as the gate wanted to know it.
        table: what it decides for each expert.
        searches: searches the others.
        until: when searching ends, in `time.perf_counter` seconds.
        seconds: what it took so far.
    """

    gate: Gate
    query: str
    spec: RetrievalSpec
    must: bool
    stores: tuple[str, ...]
    searched: Searched
    searches: Searches
    until: float
    table: Mapping[str, RetrievalDecision]
    seconds: float = 0.0

    @property
    def transforms(self) -> tuple[ScoreTransform, ...]:
        """What couples the choice of the expert with it."""
        return () if self.must else (self.gate.transform(self.table),)

    async def settle(self, expert: str, draft: Draft | None) -> Evidence:
        """Retrieve for the chosen expert, or do not.

        Args:
            expert: who was chosen.
            draft: gives the beginning of an answer, where the gate is undecided without one.
        """
        began, drafted, decision = time.perf_counter(), 0.0, self.table[expert]
        if self.must:
            decision = self._insisting(decision)
        elif draft is not None and self.gate.wants_draft(decision):
            tokens = await draft(expert)
            drafted = time.perf_counter() - began
            if tokens:
                decision = await self._after(tokens, expert, self.until + drafted)
        evidence = await self._retrieved(decision, self.until + drafted)
        seconds = self.seconds + time.perf_counter() - began - drafted  # a draft has its own bill
        reason = reasons(evidence.decision.reason, self.searched.why_not)
        decision = replace(evidence.decision, reason=reason, seconds=seconds)
        return replace(evidence, decision=decision)

    def _insisting(self, decision: RetrievalDecision) -> RetrievalDecision:
        """Choose the store of the best arm that has one."""
        arms = [rated.arm.store for rated in decision.arms if rated.arm.store in self.stores]
        store = decision.store or (arms[0] if arms else self.stores[0])
        reason = f"passages are wanted always; of the stores: {decision.reason}"
        return replace(decision, store=store, stage="request", reason=reason)

    async def _retrieved(self, decision: RetrievalDecision, until: float) -> Evidence:
        """Take the passages that were found already, or search for them."""
        if (store := decision.store) is None:
            return Evidence(decision=decision)
        searched = self.searched
        if store not in searched.found:
            searched = await self.searches.of((store,), self.query, self.spec.k, until)
        decision = replace(decision, k=self.spec.k)
        if (found := searched.found.get(store)) is None:
            return Evidence(decision=decision).dropped(searched.why_not)
        return Evidence.of(replace(found, passages=found.passages[: self.spec.k]), decision)

    async def _after(
        self, tokens: Sequence[TokenLogprob], expert: str, until: float
    ) -> RetrievalDecision:
        """Decide again with a draft; what was decided before stands where there is no time."""
        drafts = {expert: tokens}
        work = partial(_table, self.gate, self.query, [expert], self.stores, self.searched, drafts)
        try:
            return (await self.searches.computed(work, until))[expert]
        except TimeoutError:
            return self.table[expert]


async def weighed(
    gate: Gate,
    query: str,
    spec: RetrievalSpec,
    stores: tuple[str, ...],
    experts: Sequence[str],
    *,
    must: bool,
    searches: Searches,
    until: float,
) -> Weighing | Evidence:
    """Weigh for every expert, after a search where the gate reads one.

    Returns:
        evidence of nothing where every store failed.

    Raises:
        TimeoutError: there is no time for it.
    """
    searched = Searched()
    if gate.reads_search:
        # As deep as in training, where that is deeper than what is read.
        searched = await searches.of(stores, query, max(spec.k, gate.depth), until)
        if not searched.found:
            return Evidence.none(searched.why_not, "failure")
        stores = tuple(store for store in stores if store in searched.found)
    work = partial(_table, gate, query, experts, stores, searched, {})
    return Weighing(
        gate=gate,
        query=query,
        spec=spec,
        must=must,
        stores=stores,
        searched=searched,
        searches=searches,
        until=until,
        table=await searches.computed(work, until),
    )


def _table(
    gate: Gate,
    query: str,
    experts: Sequence[str],
    stores: Sequence[str],
    searched: Searched,
    drafts: Mapping[str, Sequence[TokenLogprob]],
) -> dict[str, RetrievalDecision]:
    similarity = {store: one.similarity for store, one in searched.found.items()}
    return gate.table(
        query,
        experts,
        stores=stores,
        searched=similarity or None,
        margins={s: one.margin for s, one in searched.found.items() if one.margin is not None},
        drafts=drafts,
    )
