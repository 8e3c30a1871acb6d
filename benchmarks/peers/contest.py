"""Every method on one table: its own test rows, timed, and random splits beside them."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from composer.statistics import interval, verdict
from experts_registry.types import Embedder, FloatArray
from peers.avengers_pro import AvengersPro
from peers.curves import Curve, follow, means, oracle, random_choice, split_areas, table_draws
from peers.known import KnownEncoder
from peers.llmrouter import LLMRouter
from peers.method import BestSingle, CategoryTable, Method, Queries
from peers.ours import Ours, fit_cost, median_ms, our_routers
from peers.routellm import MatrixFactorisation, SimilarityWeighted
from peers.routerbench import RouterBenchKNN
from routers.data import RoutingDataset
from routers.splits import Split, split

__all__ = ["RESAMPLES", "Contest", "together"]

RESAMPLES = 1000
Figures = dict[str, dict[str, Any]]


def methods(encoder: Embedder, routers: Sequence[str], *, real: bool) -> Iterator[Method]:
    """Yield everything that is trained."""
    yield from our_routers(encoder, routers, say=lambda _: None)
    yield MatrixFactorisation()
    yield SimilarityWeighted()
    for head in ("knn", "svm", "mlp"):
        yield LLMRouter(head=head, real=real)
    yield AvengersPro(variant="paper")
    yield AvengersPro(variant="ranks")
    yield RouterBenchKNN()
    yield BestSingle()
    yield CategoryTable()


@dataclass(kw_only=True, eq=False)
class Contest:
    """One table.

    Args:
        name: of the table.
        data: without missing cells.
        encoder: knows every query.
        routers: ours that take part; the others are compared with the first.
        real: whether LLMRouter's own package runs on the table's own split.
    """

    name: str
    data: RoutingDataset
    encoder: KnownEncoder
    routers: Sequence[str]
    real: bool = False
    areas: dict[str, list[FloatArray]] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)

    @property
    def ours(self) -> str:
        """The router that the others are compared with."""
        return self.routers[0]

    def run(self, seeds: int, *, jobs: int, say: Callable[[str], None]) -> None:
        """Fit and follow everything; random splits in several processes."""
        self._add(run_split(self, 0, say), say)
        if not seeds:
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, seeds), mp_context=context) as pool:
            shared = replace(self, areas={}, figures={}, real=False)
            for result in pool.map(_Seeded(shared), range(1, seeds + 1)):
                self._add(result, say)

    def _add(self, result: "SplitResult", say: Callable[[str], None]) -> None:
        for name, area in result.areas.items():
            self.areas.setdefault(name, []).append(area)
        for name, figures in result.figures.items():
            self.figures.setdefault(name, {}).update(figures)
        say(f"  {self.name}, {result.title}")

    def pooled(self) -> dict[str, FloatArray]:
        """Return the mean area over splits (1 + resamples,), the first of no resample."""
        return {name: np.mean(areas, axis=0) for name, areas in self.areas.items()}

    def result(self) -> Figures:
        """Return every method's figures; areas are means over the splits."""
        pooled = self.pooled()
        ours, pace = pooled[self.ours], self.figures[self.ours]
        rows = {}
        for name, area in pooled.items():
            own, around = self.figures[name], interval(area[1:])
            rows[name] = {
                "aiq": float(area[0]),
                "aiq_interval": [around.low, around.high],
                "aiq_per_split": [float(a[0]) for a in self.areas[name]],
                "ratio_to_ours": float(area[0] / ours[0]),
                "time_ratio": own["ms"] / pace["ms"] if "ms" in own else None,
                **_difference(ours - area, len(self.data)),
                **own,
            }
        return rows


@dataclass(frozen=True)
class SplitResult:
    """Areas (1 + resamples,) of each method, and its other figures where they were taken."""

    title: str
    areas: dict[str, FloatArray]
    figures: Figures


@dataclass(frozen=True)
class _Seeded:
    """Runs one split in another process."""

    contest: Contest

    def __call__(self, seed: int) -> SplitResult:
        return run_split(self.contest, seed, lambda _: None)


def run_split(contest: Contest, seed: int, say: Callable[[str], None]) -> SplitResult:
    """Fit and follow everything on one split; 0 is the table's own, and is timed."""
    began = time.perf_counter()
    data = contest.data
    parts = split(data) if seed == 0 else split(replace(data, split=()), seed=seed)
    figures: Figures = {}
    curves = _curves(contest, parts, figures if seed == 0 else None, say)
    row = {query: i for i, query in enumerate(data.ids)}
    draws = table_draws(data, RESAMPLES, seed=0)[:, [row[query] for query in parts.test.ids]]
    areas = split_areas(curves, parts.test, draws)
    if seed == 0:
        for name, (quality, cost) in means(curves, parts.test).items():
            figures.setdefault(name, {}).update(quality=quality, cost=cost)
    title = (
        f"{f'seed {seed}' if seed else 'own split'}: {len(parts.train)} train, "
        f"{len(parts.test)} test, {time.perf_counter() - began:.0f} s"
    )
    return SplitResult(title, areas, figures)


def _curves(
    contest: Contest, parts: Split, figures: Figures | None, say: Callable[[str], None]
) -> dict[str, Curve]:
    train, test = (contest.encoder.queries(part) for part in (parts.train, parts.test))
    curves = {}
    for method in methods(contest.encoder, contest.routers, real=contest.real):
        seconds, memory = fit_cost(lambda m=method: m.fit(parts.train, train))
        curves[method.name] = follow(method.sweep(test), parts.test)
        if figures is not None:
            figures[method.name] = {"fit_s": seconds, "fit_mib": memory} | timings(method, test)
            say(f"    {method.name}: fitted in {seconds:.1f} s")
    return curves | {"random": random_choice(parts.test), "oracle": oracle(parts.test)}


def timings(method: Method, test: Queries) -> dict[str, float]:
    """Time decisions beyond the encoder: from text and embedding to an expert."""
    singles = [test.take([i]) for i in range(min(100, len(test)))]
    turn = iter(singles * 3)
    many = test.take(np.arange(1000) % len(test))
    found = {
        "ms": median_ms(lambda: method.choose(next(turn)), times=len(singles)),
        "ms_1000": median_ms(lambda: method.choose(many), times=3, warm=1),
    }
    if isinstance(method, Ours):
        texts = iter([s.texts[0] for s in singles] * 3)
        found["route_ms"] = median_ms(lambda: method.router.route(next(texts)), times=len(singles))
    return found


def together(contests: Sequence[Contest]) -> Figures:
    """Compare over several tables: the mean of their differences, resampled each by itself."""
    pooled = [contest.pooled() for contest in contests]
    fewest = min(len(contest.data) for contest in contests)
    return {
        name: _difference(
            np.mean([p[c.ours] - p[name] for p, c in zip(pooled, contests, strict=True)], axis=0),
            fewest,
        )
        for name in pooled[0]
        if name != contests[0].ours
    }


def _difference(gap: FloatArray, queries: int) -> dict[str, Any]:
    """Say how much better ours is, from gaps (1 + resamples,)."""
    found = interval(gap[1:])
    return {
        "ours_less_it": float(gap[0]),
        "difference_interval": [found.low, found.high],
        "verdict": verdict(found, queries),
    }
