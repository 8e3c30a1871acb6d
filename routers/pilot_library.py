"""The pilot embeddings of RouterRetriever: where in the space of queries each retriever is best.

Lee et al., "RouterRetriever: Routing over a Mixture of Expert Embedding Models",
https://arxiv.org/abs/2409.02685, AAAI 2025. With B the base encoder and S the score matrix,

    e_max(x) = argmax_m S[x, m],   Group_{i,m} = {x in D_i : e_max(x) = m}
    c_{i,m}  = mean over Group_{i,m} of B(x),   P[m] = {c_{i,m}}

Where nDCG is 0 or 1 most queries tie, and the first retriever of a list would absorb them: a query
counts for all that are tied, in parts, and for nobody where all are. Against the opposite failure,
a collection whose queries some foreign retriever wins by luck (appendix C.4 of the paper), a share
``rho`` of each query's weight goes to the retriever that is best on its collection as a whole: the
general one, unless the mean lead of another over it is above the standard error of that lead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts_registry.types import FloatArray

__all__ = ["Building", "PilotLibrary", "winners"]

IntArray = NDArray[np.integer[Any]]
_LEAST_SHARE = 0.01  # of its collection's queries, below which a group is chance


@dataclass(frozen=True, kw_only=True)
class Building:
    """How pilots are made of scores.

    Args:
        general: column of the general retriever.
        min_group: least weight of a group, in queries.
        rho: share of each query that goes to the best retriever of its collection.
        first_wins: ties go to the first retriever, also where all are tied: as published.
        unit: scale pilots to length 1.
    """

    general: int
    min_group: float = 8.0
    rho: float = 0.25
    first_wins: bool = False
    unit: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PilotLibrary:
    """Pilots of all retrievers, in the order in which they were added.

    Args:
        vector: (p, d).
        expert: (p) whose pilot it is, a column of the score matrix.
        weight: (p) queries that it is the mean of.
        group: (p) where these come from.
        margin: (p) mean lead of the retriever over the next best one on them.
    """

    vector: FloatArray
    expert: IntArray
    weight: FloatArray
    group: IntArray
    margin: FloatArray

    @classmethod
    def of(
        cls, x: FloatArray, quality: FloatArray, group: IntArray, building: Building
    ) -> "PilotLibrary":
        """Build from unit rows x (n, d), scores (n, m) and groups (n)."""
        found = [
            pilot for g in np.unique(group) for pilot in _of_group(x, quality, group, g, building)
        ]
        return cls(
            vector=np.array([p.vector for p in found], dtype=np.float32).reshape(-1, x.shape[1]),
            expert=np.array([p.expert for p in found], dtype=np.intp),
            weight=np.array([p.weight for p in found]),
            group=np.array([p.group for p in found], dtype=np.intp),
            margin=np.array([p.margin for p in found]),
        )

    def without_group(self, group: int) -> "PilotLibrary":
        """Return the pilots that do not come from one collection."""
        return self._select(self.group != group)

    def _select(self, kept: NDArray[np.bool_]) -> "PilotLibrary":
        return PilotLibrary(
            vector=self.vector[kept],
            expert=self.expert[kept],
            weight=self.weight[kept],
            group=self.group[kept],
            margin=self.margin[kept],
        )

    def of_experts(self, columns: Sequence[int]) -> "PilotLibrary":
        """Return the pilots of these columns, renumbered by their place in the sequence."""
        place = {column: i for i, column in enumerate(columns)}
        found = self._select(np.isin(self.expert, columns))
        expert = np.array([place[e] for e in found.expert.tolist()], dtype=np.intp)
        return replace(found, expert=expert)


@dataclass(frozen=True, eq=False)
class _Pilot:
    vector: FloatArray
    expert: int
    weight: float
    group: int
    margin: float


def winners(quality: FloatArray, *, first_wins: bool = False) -> FloatArray:
    """Return the share of each query (n, m) that goes to each retriever; NaN is no score.

    Rows sum to 1, or to 0 where all that were scored are tied.
    """
    known = ~np.isnan(quality)
    filled = np.where(known, quality, -np.inf)
    best = (filled == filled.max(axis=1, keepdims=True, initial=-np.inf)) & known
    if first_wins:
        first = np.zeros(best.shape)
        first[np.arange(len(best)), best.argmax(axis=1)] = 1
        return np.where(known.any(axis=1, keepdims=True), first, 0)
    decided = (best.sum(axis=1) < known.sum(axis=1))[:, None]
    share: FloatArray = np.where(decided, best / np.maximum(best.sum(axis=1, keepdims=True), 1), 0)
    return share


def _of_group(
    x: FloatArray, quality: FloatArray, group: IntArray, g: int, building: Building
) -> Iterator[_Pilot]:
    rows = np.flatnonzero(group == g)
    own, x = quality[rows], x[rows]
    share = winners(own, first_wins=building.first_wins)
    decided = share.any(axis=1)
    share = (1 - building.rho) * share + building.rho * decided[:, None] * _best(
        own, building.general
    )
    least = 1e-9 if building.first_wins else max(building.min_group, _LEAST_SHARE * len(rows))
    for m in np.flatnonzero(share.sum(axis=0) >= least).tolist():
        weight = share[:, m]
        # One product per pilot: its bits must not depend on how many others there are.
        vector = (weight / weight.sum()) @ x
        length = float(np.linalg.norm(vector)) if building.unit else 1.0
        lead = float(weight @ _lead(own, m) / weight.sum())
        yield _Pilot(vector / max(length, 1e-12), m, float(weight.sum()), int(g), lead)


def _best(quality: FloatArray, general: int) -> FloatArray:
    """Return who is best on the queries (n, m) as a whole (m,), in parts where some are tied."""
    lead = quality - quality[:, general, None]
    if np.isnan(lead).all():  # the general one was not scored on them
        lead = quality - 0.0
    known = ~np.isnan(lead)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, lead, 0).sum(axis=0, dtype=np.float64) / count
    apart = np.where(known, lead - mean, 0)
    error = np.sqrt((apart**2).sum(axis=0) / count / count)
    mean = np.where(known.any(axis=0) & (mean >= error), mean, -np.inf)
    best = mean == mean.max()
    return best / best.sum()


def _lead(quality: FloatArray, m: int) -> FloatArray:
    """Return by how much m is ahead of the best of the others on each query (n,)."""
    others = np.delete(quality, m, axis=1)
    known = ~np.isnan(others)
    best = np.max(others, axis=1, where=known, initial=0)
    lead: FloatArray = np.nan_to_num(quality[:, m]) - best
    return lead
