"""Whether a request is answered from passages, from which store, and from which.

It is decided in two steps around the choice of the expert: what helps to choose it is looked up
first, and what was decided for the one that was chosen stands. A store that fails or is late costs
a request its passages and never its answer.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from composer.evidence import Evidence, Wish, reasons
from composer.gates import Gates
from composer.searches import Searches
from composer.store_choice import best_store, first_store, nearest_store
from composer.stores.retrieved import Retrieved
from experts_registry.errors import ComposerError, OptionError, RegistryError, unknown_name
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import RetrievalSpec
from experts_registry.schema import Composition
from experts_registry.types import Embedder
from routers.arms import RetrievalDecision
from routers.transforms import ScoreTransform

if TYPE_CHECKING:
    from composer.weighing import Draft, Weighing

__all__ = ["Look", "Retrieval", "Settled"]

logger = logging.getLogger(__name__)

_SHARE = 0.5  # of the time that a request has left: the rest is for its answer
_K = 5  # passages where nobody says how many


class Look(Protocol):
    """What is known of a request's passages before its expert is chosen."""

    @property
    def transforms(self) -> tuple[ScoreTransform, ...]:
        """What couples the choice of the expert with it."""
        ...

    async def settle(self, expert: str, draft: "Draft | None") -> Evidence:
        """Return what the chosen expert answers from."""
        ...


@dataclass(frozen=True)
class Settled:
    """The same evidence for every expert."""

    evidence: Evidence
    transforms: tuple[ScoreTransform, ...] = ()

    async def settle(self, expert: str, draft: "Draft | None") -> Evidence:
        """Return it."""
        return self.evidence


@dataclass(kw_only=True)
class Retrieval:
    """Retrieves for one registry generation.

    Args:
        registry: the stores and compositions.
        searches: searches the stores.
        gates: decide, where they are trained.
        encoder: compares what different retrievers found; None where the file names none.
    """

    registry: Registry
    searches: Searches
    gates: Gates
    encoder: Callable[[], Embedder | None]

    def search(
        self,
        query: str,
        k: int | None,
        *,
        store: str | None,
        retriever: str | None,
        stores: Collection[str] | None,
    ) -> Retrieved:
        """Search a store, or of several the one that fits the query best; computes.

        Raises:
            UnknownNameError: no readable store, or no retriever of it, has that name.
            RegistryError: the file has no store.
            ArtefactError: the store is not built, or not for this retriever.
        """
        k = _K if k is None else k
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise OptionError(f"k: {k!r} is not a whole number from 1 on")
        readable = Wish(stores=stores).readable(tuple(self.registry.stores))
        if store is not None and store not in readable:
            raise unknown_name("store", store, readable)
        names = self._with(retriever, readable) if store is None else (store,)
        if not readable and self.registry.stores:
            raise RegistryError(f"{self.registry.path}: stores: the caller may read none of them")
        if not names:
            raise RegistryError(
                f"{self.registry.path}: stores: there is none to search; name one under 'stores:'"
            )
        searcher = self.searches.searcher()
        found = {name: searcher.search(name, query, k, retriever=retriever) for name in names}
        best, why = best_store(found) or self._nearest(query, found)
        return replace(
            found[best],
            decision=replace(
                found[best].decision, reason=reasons(found[best].decision.reason, why)
            ),
            seconds=sum(one.seconds for one in found.values()),
        )

    def _with(self, retriever: str | None, stores: Sequence[str]) -> Sequence[str]:
        """Return the stores that a retriever searches, or all where none has it."""
        found = [n for n in stores if retriever in (None, *self.registry.stores[n].retrievers)]
        return found or stores

    async def look(
        self,
        query: str,
        composition: Composition,
        wish: Wish,
        experts: Sequence[str],
        left: float,
    ) -> Look | None:
        """Find out what helps to choose the expert; None where nobody wants passages.

        Args:
            query: the question.
            composition: what answers it.
            wish: the caller's.
            experts: those that may be chosen.
            left: seconds until the request's deadline.

        Raises:
            OptionError: the caller wants passages, and the composition has no store.
        """
        spec = composition.retrieval
        if spec is None:
            if wish.mode == "always":
                raise OptionError(
                    f"retrieval: composition {composition.name!r} has no store; name one under its "
                    "'retrieval:', or leave this out"
                )
            return None
        began = time.perf_counter()
        found = await self._look(query, spec, wish, experts, began + _SHARE * left)
        seconds = time.perf_counter() - began
        if isinstance(found, Evidence):
            return Settled(replace(found, decision=replace(found.decision, seconds=seconds)))
        return replace(found, seconds=seconds)

    async def _look(
        self, query: str, spec: RetrievalSpec, wish: Wish, experts: Sequence[str], at_most: float
    ) -> "Weighing | Evidence":
        mode, stage = wish.mode or spec.when, "request" if wish.mode else "file"
        stores, must = wish.readable(spec.stores), mode == "always"
        if mode == "never":
            return Evidence.none("passages are not wanted", stage)
        if not stores:
            return Evidence.none(
                "it reads none of the stores that the caller may read or names", "request"
            )
        until = self.searches.patience(stores, spec.seconds, at_most)
        if spec.gate is not None and not (must and len(stores) == 1):
            weighed = await self._weighed(query, spec, stores, experts, must, until)
            if weighed is not None:
                return weighed
        searched = await self.searches.of(stores, query, spec.k, until)
        if not searched.found:
            return Evidence.none(searched.why_not, "failure")
        store, why = await self._best(query, searched.found, until)
        reason = "passages are wanted always" if must else "no gate is trained"
        reason = reasons(reason, why, searched.why_not)
        decision = RetrievalDecision(store=store, k=spec.k, reason=reason, stage=stage)
        return Evidence.of(searched.found[store], decision)

    async def _best(
        self, query: str, found: Mapping[str, Retrieved], until: float
    ) -> tuple[str, str]:
        """Return the store to answer from, and why; the first where there is no time to tell."""
        try:
            if (best := best_store(found)) is not None:
                return best
            return await self.searches.computed(partial(self._nearest, query, found), until)
        except TimeoutError:
            return first_store(found)
        except ComposerError as error:
            logger.error("stores %s: cannot be compared: %s", ", ".join(found), error)
            return first_store(found)

    def _nearest(self, query: str, found: Mapping[str, Retrieved]) -> tuple[str, str]:
        encoder = self.encoder()
        return first_store(found) if encoder is None else nearest_store(query, found, encoder)

    async def _weighed(
        self,
        query: str,
        spec: RetrievalSpec,
        stores: tuple[str, ...],
        experts: Sequence[str],
        must: bool,
        until: float,
    ) -> "Weighing | Evidence | None":
        """Let the gate weigh; None where none is trained."""
        from composer.weighing import weighed

        try:
            gate = await self.searches.computed(partial(self.gates.of, spec), until)
            if gate is None:
                return None
            return await weighed(
                gate, query, spec, stores, experts, must=must, searches=self.searches, until=until
            )
        except TimeoutError:
            return Evidence.none("the gate did not decide in time", "failure")
        except ComposerError as error:
            logger.error("gate %s: cannot be used: %s", spec.gate, error)
            return Evidence.none(f"the gate cannot be used ({type(error).__name__})", "failure")
