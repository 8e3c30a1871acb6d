"""Route a query to the retriever whose pilot embeddings it is nearest to: RouterRetriever.

Lee et al., https://arxiv.org/abs/2409.02685; `routers.pilot_library` says what the pilots P[m] are.

    sim_m(q) = mean over c in P[m] of B(q) . c,   the retriever of a query is argmax_m sim_m(q)

That is ``rank: similarity``. softmax(sim / T) are probabilities of being the best one, T fitted on
held-out queries. Where the lead of the first is below tau, nobody's home is near, and the general
retriever is asked; tau is the one with the best held-out quality.

By default (``rank: quality``) pilots of collections decide instead: the retriever of a query has
the best mean quality on the collections that the query may come from, `routers.expected`,

    q_m(x) = sum_i p_i(x) mean_{D_i} S[., m],   p = softmax over collections of B(q) . c_i / T'

and the general one is asked where a query is far from every collection. Similarities to pilots say
who won queries like this one, and not by how much: with strong experts they left most of the gain
(docs/expert-retrievers.md). Retrievers and domains come and go in the same way.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import DataError, OptionError, unknown_name
from experts_registry.types import FloatArray
from routers.base import Router, State
from routers.baselines import macro_mean
from routers.data import RoutingDataset
from routers.expected import Expectation
from routers.pilot_details import by_quality, by_similarity
from routers.pilot_library import Building, PilotLibrary
from routers.pilot_reading import (
    Aggregate,
    fall_back,
    fit_reading,
    put_first,
    similarities,
)
from routers.score_matrix import ScoreMatrix
from routers.words import WORDS

__all__ = ["PilotRouter"]

Metric = Literal["dot", "cosine"]
Rank = Literal["quality", "similarity"]


@dataclass(kw_only=True)
class PilotRouter(Router):
    """Choose among retrievers by similarity to the queries that each was best on.

    Args:
        rank: what ranks the retrievers: the ``quality`` to expect of them, or ``similarity`` to
            their pilots, as published.
        aggregate: how similarities to the pilots of one retriever become one.
        metric: ``cosine`` scales pilots to length 1; ``dot`` is as published.
        rho: share of a query's weight that goes to the best retriever of its category.
        min_group: least weight of a group, in queries; smaller ones get no pilot.
        general: the retriever that is asked in doubt; by default the best on average.
        fallback: ask it where the lead is small, or where no collection is near.
        most: queries of a category that are kept.
        paper_exact: everything as published: ties to the first, no shrinkage, every group, mean
            of dot products, no fallback.
    """

    name: ClassVar[str] = "pilot"

    rank: Rank = "quality"
    aggregate: Aggregate = "mean"
    metric: Metric = "dot"
    rho: float = 0.25
    min_group: float = 8.0
    general: str | None = None
    fallback: bool = True
    most: int = 2000
    paper_exact: bool = False

    # While it learns: what from, and who was the general one when the first pilots were made.
    _source: tuple[ScoreMatrix, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rho <= 1:
            raise OptionError(f"rho: {self.rho!r} is not in [0, 1]")
        for name in ("min_group", "most"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: {getattr(self, name)!r} is below 1; use 1 or more")

    # -- learning -------------------------------------------------------------------------------

    def fit_embedded(self, z: FloatArray, data: RoutingDataset) -> Self:
        """Learn from outcomes; those of split ``test`` are left out.

        Raises:
            DataError: there are no outcomes, or only such.
        """
        data.require_outcomes()
        rows = _usable(data, self.most)
        digest = data.digest
        data, z = data.select(rows), z[rows]
        data.require_outcomes()
        self._learn(ScoreMatrix.of(z, data), data.experts, self._general(data))
        self.lineage_["data"] = digest
        return self

    def adopt(
        self,
        data: RoutingDataset,
        *,
        domains: Mapping[str, Sequence[str]] | None = None,
        published: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Self:
        """Return a router that also has the pilots that follow from new scored queries.

        Section 4.4 of the paper: every retriever, old or new, is scored on the new queries only,
        and gets a pilot where it is best on enough of them. No vector of before changes. Queries
        that are known already are passed over, unless they bring back a retriever that was taken
        away by `without`. Without new queries, a newcomer is known by its prior and its probes
        alone, see `Router.adopt`.
        """
        self._require_fitted()
        matrix = self.matrix
        back = [n for n in data.experts if n in matrix.experts and n not in self.experts_]
        known = set(matrix.ids)
        fresh = [i for i, name in enumerate(data.ids) if name not in known]
        data_new = data.select([i for i in fresh if data.split[i] != "test"]) if fresh else None
        if data_new is not None and _is_compared(data_new):
            data_new = data_new.select(_usable(data_new, self.most))
            matrix = matrix.extended(self.embed(data_new.queries), data_new)
            back = [n for n in data.experts if n not in self.experts_]
        elif not back:
            return super().adopt(data, domains=domains, published=published)
        return self._among_columns(matrix, {*self.experts_, *back})

    def without(self, expert: str) -> Self:
        """Return a router that never heard of a retriever, but for the queries that it won.

        Its column of the score matrix is kept: `adopt` with its outcomes brings it back exactly.

        Raises:
            UnknownNameError: it has no such retriever.
            OptionError: it is the only one.
        """
        self._require_fitted()
        if expert not in self.experts_:
            raise unknown_name("retriever", expert, self.experts_)
        if len(self.experts_) == 1:
            raise OptionError(f"{expert!r}: is the only retriever; add another one first")
        return self._among_columns(self.matrix, {*self.experts_} - {expert})

    @property
    def matrix(self) -> ScoreMatrix:
        """The scores that the pilots were made from."""
        return ScoreMatrix.read(self.state_, self.lineage_["matrix"])

    @property
    def library(self) -> PilotLibrary:
        """The pilots, their experts as columns of ``experts_``."""
        state = self.state_
        return PilotLibrary(
            vector=state["pilot.vector"],
            expert=state["pilot.expert"].astype(np.intp),
            weight=state["pilot.weight"],
            group=state["pilot.group"].astype(np.intp),
            margin=state["pilot.margin"],
        )

    def _among_columns(self, matrix: ScoreMatrix, active: set[str]) -> Self:
        changed = copy(self)
        digest, general = self.lineage_["data"], self.lineage_["general"]
        changed._learn(matrix, [name for name in matrix.experts if name in active], general)
        changed.lineage_["data"] = digest
        return changed

    def _learn(self, matrix: ScoreMatrix, experts: Sequence[str], general: str) -> None:
        """Fit everything anew from the matrix; the texts of its queries are not needed."""
        self._source = matrix, general
        try:
            super().fit_embedded(matrix.z, matrix.outcomes(experts))
        finally:
            self._source = None
        self.state_ |= matrix.arrays()
        self.lineage_ |= {"matrix": matrix.names(), "general": general}

    def _fit(self, x: FloatArray, data: RoutingDataset) -> State:
        matrix, first = self._source or (ScoreMatrix.of(x, data), self._general(data))
        x = _embedding(x)
        columns = [matrix.experts.index(name) for name in data.experts]
        build = partial(self._build, general=matrix.experts.index(first), columns=columns)
        library = build(x, matrix)
        name = first if first in data.experts else self._general(data)
        general = data.experts.index(name)
        held = np.zeros(data.quality.shape)
        for f in np.unique(matrix.fold):
            rows = matrix.fold == f
            part = library if rows.all() else build(x[~rows], matrix.select(~rows))
            held[rows] = similarities(x[rows], part, len(columns), self._aggregate)
        away = held.copy()
        for g in np.unique(matrix.group):
            rows, part = matrix.group == g, library.without_group(g)
            away[rows] = similarities(x[rows], part, len(columns), self._aggregate)
        may_fall_back = self.fallback and not self.paper_exact
        reading = fit_reading(held, away, data, general, fallback=may_fall_back)
        expectation = Expectation.fit(x, data.quality, matrix.group, matrix.fold)
        self.lineage_["pilots"] = len(library.vector)
        called = dict(zip(matrix.group.tolist(), matrix.categories, strict=True))
        self.lineage_["collections"] = [called[group] for group in sorted(called)]
        return {
            "pilot.vector": library.vector,
            "pilot.expert": library.expert,
            "pilot.weight": library.weight,
            "pilot.group": library.group,
            "pilot.margin": library.margin,
            "pilot.general": np.array([general]),
            "pilot.temperature": np.array([reading.temperature]),
            "pilot.tau": np.array([reading.tau]),
            "pilot.slope": np.array([reading.slope]),
            **expectation.arrays(),
        }

    def _build(
        self, x: FloatArray, matrix: ScoreMatrix, *, general: int, columns: Sequence[int]
    ) -> PilotLibrary:
        exact = self.paper_exact
        building = Building(
            general=general,
            min_group=self.min_group,
            rho=0.0 if exact else self.rho,
            first_wins=exact,
            unit=self.metric == "cosine" and not exact,
        )
        found = PilotLibrary.of(x, matrix.quality, matrix.group, building)
        return found.of_experts(columns)

    def _general(self, data: RoutingDataset) -> str:
        if self.general is not None and self.general in data.experts:
            return self.general
        mean = macro_mean(data)
        best = [name for name, q in zip(data.experts, mean, strict=True) if q == np.nanmax(mean)]
        return min(best)  # by name, so that their order makes no difference

    # -- routing --------------------------------------------------------------------------------

    def _score(self, x: FloatArray, state: State) -> FloatArray:
        return Expectation.read(state).mixed(_embedding(x))[0]

    def _error(self, x: FloatArray, state: State) -> FloatArray:
        """Return the standard error: of the collections' means, and of not knowing which it is."""
        return Expectation.read(state).mixed(_embedding(x))[1]

    def _utility(self, x: FloatArray, state: State, quality: FloatArray) -> FloatArray:
        """Rank by similarity, on the scale of quality: costs and newcomers are compared with it."""
        general = int(state["pilot.general"][0])
        if self._is_by_quality:
            return put_first(quality, general, self._is_far(x, state))
        found = self._similarity(x, state)
        found = fall_back(found, general, float(state["pilot.tau"][0]))
        nearer = found - found.mean(axis=1, keepdims=True)
        level = quality.mean(axis=1, keepdims=True)
        return np.asarray(level + float(state["pilot.slope"][0]) * nearer)

    @property
    def _is_by_quality(self) -> bool:
        return self.rank == "quality" and not self.paper_exact

    def _is_far(self, x: FloatArray, state: State) -> NDArray[np.bool_]:
        """Tell for which queries the general retriever stands in, (n,)."""
        if not self.fallback:
            return np.zeros(len(x), dtype=bool)
        return ~Expectation.read(state).is_near(_embedding(x))

    def _similarity(self, x: FloatArray, state: State) -> FloatArray:
        return similarities(_embedding(x), self.library, len(self.experts_), self._aggregate)

    @property
    def _aggregate(self) -> Aggregate:
        return "mean" if self.paper_exact else self.aggregate

    def _details(self, x: FloatArray, state: State) -> Mapping[str, Any]:
        general = self.experts_[int(state["pilot.general"][0])]
        if self._is_by_quality:
            share = Expectation.read(state).shares(_embedding(x))[0]
            asked = general if self._is_far(x, state)[0] else None
            return by_quality(
                self.lineage_["collections"], share.tolist(), self._score(x, state), asked
            )
        temperature, tau = (float(state[f"pilot.{name}"][0]) for name in ("temperature", "tau"))
        found = self._similarity(x, state)
        return by_similarity(self.experts_, found, temperature, tau, general)


def _embedding(x: FloatArray) -> FloatArray:
    """Return the embeddings as unit rows (n, d), without the words: pilots are of the encoder."""
    rows = np.asarray(x[:, :-WORDS], dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: FloatArray = rows / np.maximum(length, 1e-12)
    return unit


def _usable(data: RoutingDataset, most: int) -> list[int]:
    """Return the rows to learn from: none of split ``test``, and not too many of a category.

    Raises:
        DataError: there are none.
    """
    rows = np.array([i for i, split in enumerate(data.split) if split != "test"], dtype=np.intp)
    if not len(rows):
        raise DataError("outcomes: every query is of split test; score those of train or val")
    order = np.random.default_rng(0).permutation(rows)
    kept = [order[data.labels[order] == c][:most] for c in np.unique(data.labels[rows])]
    return sorted(np.concatenate(kept).tolist())


def _is_compared(data: RoutingDataset) -> bool:
    """Say whether any query was scored with two retrievers."""
    return bool(((~np.isnan(data.quality)).sum(axis=1) > 1).any())
