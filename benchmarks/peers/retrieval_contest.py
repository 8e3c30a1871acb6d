"""Ways to retrieve from one collection, asked the same queries one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np

from composer.judged import JudgedQuery
from composer.statistics import bootstrap, interval, verdict
from experts_registry.types import FloatArray

__all__ = ["DEPTH", "System", "asked", "compared"]

DEPTH = 10
RESAMPLES = 1000
_MEASURE = ir_measures.nDCG @ DEPTH


@dataclass(frozen=True)
class System:
    """Something that retrieves: query and k -> passage id -> score, best first."""

    name: str
    search: Callable[[str, int], Mapping[str, float]]


def asked(
    systems: Sequence[System], queries: Sequence[JudgedQuery]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return nDCG@10 and seconds of every query (n,), by system.

    They take turns at each query, so that none has the machine to itself.
    """
    runs: dict[str, list[ir_measures.ScoredDoc]] = {system.name: [] for system in systems}
    seconds: dict[str, list[float]] = {system.name: [] for system in systems}
    for system in systems:
        system.search("a first query loads what is loaded late", DEPTH)
    for turn, query in enumerate(queries):
        for i in range(len(systems)):
            system = systems[(turn + i) % len(systems)]
            began = time.perf_counter()
            found = system.search(query.text, DEPTH)
            seconds[system.name].append(time.perf_counter() - began)
            runs[system.name] += [
                ir_measures.ScoredDoc(query.id, passage, score) for passage, score in found.items()
            ]
    judged = [
        ir_measures.Qrel(query.id, passage, grade)
        for query in queries
        for passage, grade in query.relevant.items()
    ]
    return {
        name: (_ndcg(queries, judged, run), np.array(seconds[name])) for name, run in runs.items()
    }


def _ndcg(queries: Sequence[JudgedQuery], judged: Sequence[Any], run: Sequence[Any]) -> FloatArray:
    found = {m.query_id: m.value for m in ir_measures.iter_calc([_MEASURE], judged, run)}
    return np.array([found.get(query.id, 0.0) for query in queries])


def compared(own: FloatArray, peer: FloatArray, labels: Sequence[str]) -> dict[str, Any]:
    """Compare two systems on the same queries (n,); every label counts the same."""
    names = np.unique(labels, return_inverse=True)[1]
    draws = bootstrap(np.stack([own, peer], axis=1), names, RESAMPLES, seed=0)  # (resamples, 2)
    means = [float(np.mean([v[names == c].mean() for c in np.unique(names)])) for v in (own, peer)]
    gap = interval(draws[:, 0] - draws[:, 1])
    return {
        "ndcg": means[0],
        "ratio": means[0] / means[1],
        "gap": means[0] - means[1],
        "interval": (gap.low, gap.high),
        "verdict": verdict(gap, len(own), int((own != peer).sum())),
    }
