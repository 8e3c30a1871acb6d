"""What the heads of a gate say of questions and of drafts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts_registry.types import Embedder, FloatArray, TokenLogprob
from routers.draft import SIGNALS, draft_signals
from routers.features import window
from routers.gates.data import GateData
from routers.gates.drafting import draft_inputs
from routers.gates.fitting import frequencies_of
from routers.gates.heads import Head
from routers.gates.inputs import raw_inputs, scaled
from routers.gates.search import SEARCH, near, search_features

__all__ = ["Scoring", "Search"]

Search = Mapping[str, Sequence[float]]
"""Similarities of the best passages by store, best first."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """Computes chances of right answers.

    Args:
        state: of a gate.
        stores: (s) names.
        reads_search: whether heads read what a search says.
        depth: similarities of a search that they read.
    """

    state: Mapping[str, FloatArray]
    stores: tuple[str, ...]
    reads_search: bool
    depth: int

    def read(
        self,
        query: str | FloatArray,
        encoder: Embedder,
        searched: Search,
        margins: Mapping[str, float],
    ) -> FloatArray:
        """Return what the heads read of one question, or of its embedding (d,), as z (1, p)."""
        texts = [window(query)] if isinstance(query, str) else None
        x = encoder.embed(texts, role="query") if texts else np.atleast_2d(query)
        search = np.full((1, len(self.stores), len(SEARCH)), np.nan)
        for i, store in enumerate(self.stores):
            search[0, i] = search_features(searched.get(store, ()), margins.get(store), self.depth)
        return self._inputs(texts, x, search)

    def is_worth_reading(self, store: str, similarity: Sequence[float] | None) -> bool:
        """Tell whether a search, where there was one, found anything as near as in training."""
        if similarity is None:
            return True
        if not len(similarity) or store not in self.stores:
            return len(similarity) > 0
        search = np.full((1, len(self.stores), len(SEARCH)), np.nan)
        search[0, i := self.stores.index(store), 0] = similarity[0]
        return bool(near(search, self.state)[0, i])

    def chances(self, z: FloatArray, expert: int) -> tuple[FloatArray, FloatArray]:
        """Return the chance of a right answer by arm (1 + s,), and its error, for z (1, p)."""
        said = [head(z) for head in self._heads(expert)]
        return np.array([p[0] for p, _ in said]), np.array([e[0] for _, e in said])

    def all_chances(self, data: GateData, x: FloatArray, expert: int) -> FloatArray:
        """Return the chances (n, 1 + s) for many queries, with embeddings x (n, d)."""
        z = self._inputs(data.queries, x, data.search)
        return np.stack([head(z)[0] for head in self._heads(expert)], axis=1)

    def after_draft(
        self, chances: FloatArray, draft: Sequence[TokenLogprob], expert: int
    ) -> float | None:
        """Return the chance of arm 0 after a draft; None where it tells nothing.

        Args:
            chances: (1 + s,) before it.
            draft: the beginning of an answer without passages.
            expert: who wrote it.
        """
        if (signals := draft_signals(draft)) is None:
            return None
        row = np.array([[signals[name] for name in SIGNALS]])
        found = self.after_drafts(chances[None], row, expert)
        return None if found is None else float(found[0])

    def after_drafts(
        self, chances: FloatArray, signals: FloatArray, expert: int
    ) -> FloatArray | None:
        """Return the chances (n,) of arm 0 after drafts (n, g), NaN without one."""
        name = f"{expert}.draft"
        if f"{name}.signals" not in self.state:
            return None
        mean, spread = self.state[f"{name}.signals"]
        z = (signals - mean) / spread
        known = ~np.isnan(z).any(axis=1)
        inputs = draft_inputs(np.nan_to_num(z), chances)
        return np.where(known, Head.of(self.state, name)(inputs)[0], np.nan)

    def _heads(self, expert: int) -> list[Head]:
        return [Head.of(self.state, f"{expert}.{a}") for a in range(1 + len(self.stores))]

    def _inputs(
        self, queries: Sequence[str] | None, x: FloatArray, search: FloatArray
    ) -> FloatArray:
        read = search if self.reads_search else None
        raw = raw_inputs(queries, x, read, frequencies_of(self.state))
        return scaled(raw, self.state["scale.inputs"])
