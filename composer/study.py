"""What holds beyond one split: refits on other splits, on left-out categories and experts.

Three questions: does a router gain on other queries of the same kind, on a category that it has
never seen, and with an expert that came after the training? Every fit is new; queries are
embedded once.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from composer.contenders import Contender, baselines, best_columns, bounds, follow, pinned
from composer.evaluation import complete_cells, gap_closed
from composer.refits import ColdStart, Refit, StudyResult, summarise
from composer.statistics import (
    FEWEST,
    McNemar,
    Verdict,
    macro_weights,
    mcnemar,
    paired_interval,
    verdict,
)
from composer.tradeoff import aiq
from experts_registry.errors import OptionError, unknown_name
from experts_registry.types import FloatArray
from routers.base import Router
from routers.data import RoutingDataset
from routers.splits import find_alike, split
from routers.transforms import ScoreTransform

__all__ = ["Guarding", "Plan", "study"]

IntArray = NDArray[np.integer[Any]]
Guarding = Callable[[Router, FloatArray, RoutingDataset], Sequence[ScoreTransform]]
_DRAWS = 3  # of probes, over which a cold start is averaged


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study does.

    Args:
        refits: random splits by query.
        categories: most categories that are left out in turn, the largest first; None for all.
        experts: most experts that are hidden in turn, the most useful first; None for all.
        test: share of queries that a random split holds out.
        probes: outcomes by which a hidden expert becomes known.
        baseline: the pinned expert, against which violations are counted.
        guard: makes what changes the scores of a router, from it, its embedded training queries
            and their outcomes; the router is judged without it, and as ``<name> with guard``.
        seed: of the first split; the next ones follow.
    """

    refits: int = 5
    categories: int | None = None
    experts: int | None = None
    test: float = 0.2
    probes: int = 20
    baseline: str | None = None
    guard: Guarding | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("refits", "categories", "experts", "probes"):
            if (count := getattr(self, name)) is not None and count < 0:
                raise OptionError(f"{name}: {count} is below 0; use 0 to leave it out")

    def fits(self, routers: int, data: RoutingDataset) -> int:
        """Return how many routers will be fitted."""
        categories = len(_categories(data, self.categories))
        experts = _hidden(data, self.experts)
        return routers * (self.refits + categories + (experts + 1 if experts else 0))


def study(
    routers: Mapping[str, Router],
    data: RoutingDataset,
    plan: Plan | None = None,
    *,
    advance: Callable[[str], None] = lambda what: None,
) -> StudyResult:
    """Fit and judge routers again and again.

    Args:
        routers: by the name that reports give them; only their hyperparameters are used.
        data: all outcomes; a split that they carry is not looked at.
        plan: what to do.
        advance: called with what was done after every fit.

    Raises:
        DataError: there are too few queries to hold any out.
        UnknownNameError: the plan's baseline is not one of the experts.
    """
    plan = plan or Plan()
    if plan.baseline is not None and plan.baseline not in data.experts:
        raise unknown_name("baseline", plan.baseline, data.experts)
    began = time.perf_counter()
    data = replace(data, split=(), ids=())
    run = _Run(routers, data, plan, advance)
    refits = [*run.random(), *run.left_out_categories()]
    cold = tuple(run.hidden_experts())
    return StudyResult(
        refits=tuple(refits),
        summaries=tuple(summarise(refits, plan.test)),
        cold_starts=cold,
        seed=plan.seed,
        fits=run.fits,
        seconds=time.perf_counter() - began,
    )


class _Run:
    """One study under way; rows are numbers of queries in the whole table."""

    def __init__(
        self,
        routers: Mapping[str, Router],
        data: RoutingDataset,
        plan: Plan,
        advance: Callable[[str], None],
    ) -> None:
        self.fits = 0
        self._routers, self._data, self._plan, self._advance = routers, data, plan, advance
        rows: dict[str, FloatArray] = {}  # encoder digest -> all queries, embedded once
        for router in routers.values():
            if router.encoder.digest not in rows:
                rows[router.encoder.digest] = router.embed(data.queries)
        self._z = {name: rows[router.encoder.digest] for name, router in routers.items()}

    def random(self) -> Iterator[Refit]:
        """Yield the refits on random splits."""
        for seed in range(self._plan.seed, self._plan.seed + self._plan.refits):
            train, test = self._split(seed)
            yield from self._judge("random", f"seed {seed}", train, test)

    def left_out_categories(self) -> Iterator[Refit]:
        """Yield the refits without a category; what is like one of its queries stays out too."""
        first, second, _ = find_alike(self._data.queries)
        for name in _categories(self._data, self._plan.categories):
            is_test = np.array(self._data.category) == name
            is_train = ~is_test
            for one, other in ((first, second), (second, first)):
                is_train[one[is_test[other]]] = False
            train, test = np.flatnonzero(is_train), np.flatnonzero(is_test)
            yield from self._judge("category", name, train, test)

    def hidden_experts(self) -> Iterator[ColdStart]:
        """Yield what becomes of each expert that was not there at fit time."""
        most = _hidden(self._data, self._plan.experts)
        if not most:
            return
        train, rest = self._split(self._plan.seed)
        known, test, kept = self._tables(train, rest)
        for name in self._routers:
            z = self._z[name]
            full = self._fit(name, train, known)
            choice = best_columns(full.predict_embedded(z[kept], experts=test.experts))
            share = np.bincount(choice, minlength=len(test.experts)) / len(test)
            for column in np.argsort(-share, kind="stable")[:most]:
                yield self._cold(name, int(column), full, train, known, z[kept], test)

    def _cold(
        self,
        name: str,
        column: int,
        full: Router,
        train: IntArray,
        known: RoutingDataset,
        z: FloatArray,
        test: RoutingDataset,
    ) -> ColdStart:
        expert = test.experts[column]
        fitted = self._fit(name, train, known.without(expert))
        tried = np.flatnonzero(~np.isnan(known.quality[:, column]))
        rng = np.random.default_rng(self._plan.seed)
        drawn = [
            rng.choice(tried, size=min(self._plan.probes, len(tried)), replace=False)
            for _ in range(_DRAWS)
        ]
        prior = _reached(fitted.adopt(known.select([])), z, test, column)
        probed = [_reached(fitted.adopt(known.select(r)), z, test, column) for r in drawn]
        mean = np.mean(probed, axis=0)
        everything = _reached(full, z, test, column)
        return ColdStart(
            expert=expert,
            router=name,
            prior=prior[0],
            probed=float(mean[0]),
            full=everything[0],
            share=(prior[1], float(mean[1]), everything[1]),
            error=(prior[2], float(mean[2]), everything[2]),
            probes=len(drawn[0]),
        )

    def _judge(
        self, kind: Literal["random", "category"], held_out: str, train: IntArray, rest: IntArray
    ) -> Iterator[Refit]:
        known, test, kept = self._tables(train, rest)
        routed = []
        for name in self._routers:
            router, z = self._fit(name, train, known), self._z[name]
            routed.append(follow(name, router, z[kept], test))
            if (guard := self._plan.guard) and (changes := guard(router, z[train], known)):
                guarded = f"{name} with guard"
                routed.append(follow(guarded, router, z[kept], test, transforms=changes))
        others = [*baselines(known, test), *bounds(test)]
        if self._plan.baseline in test.experts:
            others.append(pinned(test, str(self._plan.baseline)))
        for contender in routed:
            rivals = [c for c in (*others, *routed) if c is not contender]
            yield _refit(kind, held_out, contender, rivals, test, self._plan.baseline)

    def _split(self, seed: int) -> tuple[IntArray, IntArray]:
        parts = split(self._data, test=self._plan.test, seed=seed)
        train, test = (np.array(part.ids, dtype=np.intp) for part in (parts.train, parts.test))
        return train, test

    def _tables(
        self, train: IntArray, rest: IntArray
    ) -> tuple[RoutingDataset, RoutingDataset, IntArray]:
        """Return training data, complete test data, and the rows of the latter."""
        known, test = complete_cells(self._data.select(train), self._data.select(rest))
        whole = ~np.isnan(self._data.only(test.experts).quality[rest]).any(axis=1)
        return known, test, rest[whole]

    def _fit(self, name: str, rows: IntArray, data: RoutingDataset) -> Router:
        fitted = replace(self._routers[name]).fit_embedded(self._z[name][rows], data)
        self.fits += 1
        self._advance(name)
        return fitted


def _reached(
    router: Router, z: FloatArray, test: RoutingDataset, column: int
) -> tuple[float, float, float]:
    """Return quality, the expert's share of the queries, and the error of its mean quality."""
    prediction = router.predict_embedded(z, experts=test.experts)
    choice, weight = best_columns(prediction), macro_weights(test.labels)
    quality = float(weight @ test.quality[np.arange(len(test)), choice])
    error = abs(float(weight @ (prediction.quality[:, column] - test.quality[:, column])))
    return quality, float((choice == column).mean()), error


def _refit(
    kind: Literal["random", "category"],
    held_out: str,
    router: Contender,
    rivals: Sequence[Contender],
    test: RoutingDataset,
    baseline: str | None,
) -> Refit:
    weight = macro_weights(test.labels)
    reach = {c.name: float(weight @ c.policy.quality) for c in (router, *rivals)}
    areas = {c.name: aiq(c, test) for c in (router, *rivals)}
    cost, area = float(weight @ router.policy.cost), areas[router.name]
    single = next(c for c in rivals if c.name == "best single")
    found = mcnemar(router.policy.quality, single.policy.quality)
    below: Verdict | None = None
    if baseline in test.experts:
        column = test.quality[:, test.experts.index(str(baseline))]
        gain = router.policy.quality - column
        differ = int(np.count_nonzero(gain))
        below = verdict(paired_interval(gain, test.labels), len(test), differ)
    return Refit(
        kind=kind,
        held_out=held_out,
        router=router.name,
        queries=len(test),
        quality=reach[router.name],
        cost=None if np.isnan(cost) else cost,
        aiq=area,
        gap_closed=gap_closed(reach[router.name], reach["best single"], reach["oracle"]),
        differences={c.name: reach[router.name] - reach[c.name] for c in rivals},
        aiq_differences={
            name: area - other
            for name, other in areas.items()
            if name != router.name and area is not None and other is not None
        },
        verdict=_says(found),
        mcnemar=found,
        pinned=below,
    )


def _says(found: McNemar) -> Verdict:
    if found.p >= 0.05:
        return "not significant"
    return "better" if found.wins > found.losses else "worse"


def _categories(data: RoutingDataset, most: int | None) -> list[str]:
    """Return the categories worth leaving out: with enough queries, the largest first."""
    count = {name: data.category.count(name) for name in data.categories}
    large = sorted((c for c, n in count.items() if n >= FEWEST), key=lambda c: (-count[c], c))
    return large[: _most(len(large), most)] if len(count) > 1 else []


def _hidden(data: RoutingDataset, most: int | None) -> int:
    """Return how many experts are hidden in turn: none of two, since one is no choice."""
    return _most(len(data.experts) if len(data.experts) > 2 else 0, most)


def _most(there: int, wanted: int | None) -> int:
    return there if wanted is None else min(there, wanted)
