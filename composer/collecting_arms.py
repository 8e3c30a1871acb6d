"""Ask every expert every query without passages and with them: outcomes that a gate learns from.

The rows are named by arm, ``expert`` and ``expert+store``. Those with a store also say which
passages were read and how similar they are to the query; those without say how sure the expert
was of the beginning of its answer, where it tells.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from composer.collect import Call, Column
from composer.grounding import grounded, room_for
from composer.queries import Query
from composer.stores.retrieved import Retrieved
from experts_registry.schema import ExpertSpec
from experts_registry.types import Generation, Prompt
from routers.arms import Arm
from routers.draft import TOP_LOGPROBS

__all__ = ["Search", "arm_columns", "asking_arms", "search_all"]


class Search(Protocol):
    """Finds passages in a store."""

    def __call__(self, store: str, query: str, k: int) -> Retrieved:
        """Return the ``k`` best passages for a query."""
        ...


def arm_columns(
    queries: Sequence[Query],
    experts: Mapping[str, ExpertSpec],
    found: Mapping[str, Mapping[str, Retrieved]],
) -> list[Column]:
    """Return a column for every expert alone and with each store.

    Args:
        queries: what to ask.
        experts: whom to ask.
        found: by store and query id, what was found.
    """
    columns = []
    for name, spec in experts.items():
        columns.append(Column(spec, [_drafted(query, spec) for query in queries]))
        for store, retrieved in found.items():
            arm = spec.model_copy(update={"name": str(Arm(name, store))})
            columns.append(Column(arm, [_fitted(q, retrieved[q.id], spec) for q in queries]))
    return columns


def search_all(
    queries: Sequence[Query],
    stores: Sequence[str],
    search: Search,
    k: int,
    advance: Callable[[str], None] = lambda store: None,
) -> dict[str, dict[str, Retrieved]]:
    """Search every store for every query: by store and query id, what was found."""
    found: dict[str, dict[str, Retrieved]] = {store: {} for store in stores}
    for store in stores:
        for query in queries:
            found[store][query.id] = search(store, query.prompt.query, k)
            advance(store)
    return found


def asking_arms(call: Call) -> Call:
    """Return a call that takes the name of an arm for that of its expert."""

    async def ask(arm: str, prompt: Prompt) -> Generation:
        return await call(Arm.of(arm).expert, prompt)

    return ask


def _drafted(query: Query, spec: ExpertSpec) -> Query:
    """Ask for log-probabilities too, unless the expert is known not to tell them."""
    if spec.offers and "logprobs" not in spec.offers:
        return query
    sampling = replace(query.prompt.sampling, logprobs=True, top_logprobs=TOP_LOGPROBS)
    return replace(query, prompt=replace(query.prompt, sampling=sampling))


def _fitted(query: Query, retrieved: Retrieved, spec: ExpertSpec) -> Query:
    """Keep the passages that the expert would be given when it serves."""
    _, kept = grounded(query.prompt, retrieved.passages, tokens=room_for(spec, query.prompt))
    return replace(query, retrieved=replace(retrieved, passages=kept))
