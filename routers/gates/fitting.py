"""Fit a gate: heads for every arm of every expert, one for drafts, and what they said unseen."""

from collections.abc import Iterable, Mapping

import numpy as np

from experts_registry.errors import DataError
from experts_registry.types import FloatArray
from routers.gates.data import GateData
from routers.gates.drafting import best_band, choose, fit_draft, within
from routers.gates.features import document_frequencies
from routers.gates.guard import Verdict, judge
from routers.gates.heads import balanced, fit_head
from routers.gates.inputs import fit_scale, raw_inputs, scaled, stretches_of
from routers.gates.price import RetrievalPrice, measured_costs
from routers.gates.search import FLOOR, floor_of, near
from routers.splits import folds

__all__ = ["FOLDS", "decided", "draft_price", "fit_state", "frequencies_of", "price_of"]

FOLDS = 5


def fit_state(
    data: GateData,
    x: FloatArray,
    *,
    reads_search: bool,
    texts: Mapping[str, Iterable[str]],
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Return the arrays of a gate; see `routers.gating.Gate`.

    Args:
        data: outcomes.
        x: (n, d) embeddings of the queries.
        reads_search: whether the heads read what a search says.
        texts: of the passages by store, for how rare a question's words are there.
        seed: of the folds.

    Raises:
        DataError: no query has outcomes of all arms of an expert.
    """
    _require_all_arms(data)
    state = {f"words.{store}": document_frequencies(texts[store]) for store in texts}
    search = data.search if reads_search else None
    z = raw_inputs(data.queries, x, search, frequencies_of(state))
    state["scale.inputs"] = fit_scale(z, x.shape[1])
    z = scaled(z, state["scale.inputs"])
    stretches = stretches_of(z.shape[1], x.shape[1])
    fold, weight = folds(data.table, FOLDS, seed=seed), balanced(data.category)
    n, m, arms = data.quality.shape
    chances, drafted = np.empty((n, m, arms)), np.full((n, m), np.nan)
    for e in range(m):
        for a in range(arms):
            fitted = fit_head(z, data.quality[:, e, a], fold, weight, stretches)
            state |= fitted.head.state(f"{e}.{a}")
            chances[:, e, a] = fitted.held
        scale = fit_scale(data.draft[:, e], 0)
        signals = (data.draft[:, e] - scale[0]) / scale[1]
        found = fit_draft(signals, chances[:, e], data.quality[:, e, 0], fold, weight)
        if found is not None:
            state |= found.head.state(f"{e}.draft") | {f"{e}.draft.signals": scale}
            drafted[:, e] = found.held
    if reads_search:
        state[FLOOR] = floor_of(data.search)
    held = {"held.chance": chances, "held.quality": data.quality, "held.drafted": drafted}
    held["held.near"] = near(data.search, state).astype(np.float32)
    return state | held | measured_costs(data)


def _require_all_arms(data: GateData) -> None:
    known = ~np.any(np.isnan(data.quality), axis=2)  # (n, m)
    for e, name in enumerate(data.experts):
        if not known[:, e].any():
            raise DataError(
                f"outcomes: expert {name!r} has no query with outcomes both without passages and "
                f"with those of {', '.join(data.stores)}; collect them, or leave it out"
            )


def price_of(state: Mapping[str, FloatArray], price: RetrievalPrice, expert: int) -> FloatArray:
    """Return what retrieving from each store is charged for an expert, (s,)."""
    return price.retrieving(state["usd"][expert], state["seconds"][expert])


def decided(state: Mapping[str, FloatArray], price: RetrievalPrice) -> list[tuple[float, Verdict]]:
    """Return, for each expert, the band in which it drafts and whether the gate has skill."""
    found = []
    for e in range(state["held.chance"].shape[1]):
        chances, drafted = state["held.chance"][:, e], state["held.drafted"][:, e]
        charged, draft = price_of(state, price, e), draft_price(state, price, e)
        utility = state["held.quality"][:, e] - np.append(0.0, charged)
        chances = within(chances, state.get("held.near"))
        band = best_band(chances, drafted, utility, charged, draft)
        chosen = choose(chances, drafted, charged, band, draft)
        found.append((band, judge(utility, chosen.arm, chosen.paid)))
    return found


def draft_price(state: Mapping[str, FloatArray], price: RetrievalPrice, expert: int) -> float:
    """Return what a draft costs: at most an answer without passages."""
    return float(price.of(state["draft.usd"][expert], state["draft.seconds"][expert]))


def frequencies_of(state: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the tables of word frequencies by store."""
    return {
        name.removeprefix("words."): table
        for name, table in state.items()
        if name.startswith("words.")
    }
