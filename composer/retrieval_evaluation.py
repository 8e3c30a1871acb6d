"""Compare retrievers, alone and routed, on judged queries that nothing was learned from.

Every system is measured on the same queries; differences are bootstrapped in pairs within each
dataset, and every dataset counts the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from composer.evaluation import gap_closed
from composer.judged import JudgedQuery
from composer.retrieval_baselines import IntArray, classification_head, dataset_label
from composer.retrieval_measures import MEASURES, NDCG, Ranked, measured
from composer.retrieval_report import Difference, RetrievalReport, System
from composer.statistics import bootstrap, interval, macro_weights, verdict
from composer.stores.fusion import fused
from experts_registry.errors import unknown_name
from experts_registry.types import FloatArray
from routers.base import Router
from routers.baselines import category_oracle, category_table
from routers.data import RoutingDataset
from routers.features import without_features
from routers.pilot_library import winners

__all__ = ["Bench", "evaluate_retrievers"]

Values = Mapping[str, FloatArray]  # measure -> (n,)
ROUTED, FUSED = "routed", "routed, top 2 fused"


@dataclass(frozen=True, eq=False)
class Bench:
    """What every retriever found for every test query.

    Args:
        judged: dataset -> its queries.
        lists: dataset -> retriever -> one ranked list per query.
    """

    judged: Mapping[str, Sequence[JudgedQuery]]
    lists: Mapping[str, Mapping[str, Sequence[Ranked]]]
    retrievers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        first = next(iter(self.lists.values()))
        object.__setattr__(self, "retrievers", tuple(first))

    @cached_property
    def queries(self) -> tuple[JudgedQuery, ...]:
        """All queries (n), dataset after dataset."""
        return tuple(query for queries in self.judged.values() for query in queries)

    @cached_property
    def values(self) -> dict[str, FloatArray]:
        """Measure -> (n, m) of each retriever alone."""
        each = [measured(self.queries, self.of(name)) for name in self.retrievers]
        return {name: np.stack([values[name] for values in each], axis=1) for name in MEASURES}

    def of(self, retriever: str) -> list[Ranked]:
        """Return what one found for each query, (n)."""
        return [found for each in self.lists.values() for found in each[retriever]]

    @cached_property
    def table(self) -> RoutingDataset:
        """The nDCG@10 of each retriever as outcomes, the dataset as category."""
        names = [name for name, queries in self.judged.items() for _ in queries]
        return RoutingDataset(
            queries=tuple(query.text for query in self.queries),
            experts=self.retrievers,
            quality=np.clip(self.values[NDCG], 0, 1),
            category=tuple(names),
            ids=tuple(f"{name}/{q.id}" for name, q in zip(names, self.queries, strict=True)),
            split=("test",) * len(names),
        )

    def chosen(self, choice: IntArray) -> Values:
        """Return the measures of following one choice per query (n,)."""
        rows = np.arange(len(self.queries))
        return {name: values[rows, choice] for name, values in self.values.items()}

    def fused(self, choice: IntArray) -> Values:
        """Return the measures of the lists of several retrievers (n, k), fused by their ranks."""
        lists = [self.of(name) for name in self.retrievers]
        found = []
        for row, columns in enumerate(choice.tolist()):
            names = [[*lists[column][row]] for column in columns]
            number = {name: i for i, name in enumerate({n: None for each in names for n in each})}
            order = [*number]
            scores = fused([[number[name] for name in each] for each in names])
            found.append({order[i]: score for i, score in scores.items()})
        return measured(self.queries, found)


def evaluate_retrievers(
    bench: Bench,
    *,
    general: str,
    router: Router | None = None,
    train: RoutingDataset | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> RetrievalReport:
    """Measure each retriever alone, the router, the baselines of the paper, and the bounds.

    Args:
        bench: what was found.
        general: the retriever that is compared with.
        router: trained on scores of other queries; without it only single ones are compared.
        train: those scores; without them the learned baselines are left out.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UnknownNameError: ``general`` is not one of the retrievers.
    """
    if general not in bench.retrievers:
        raise unknown_name("retriever", general, bench.retrievers)
    systems: dict[str, tuple[str, Values]] = {}
    for column, name in enumerate(bench.retrievers):
        systems[name] = "single", {m: values[:, column] for m, values in bench.values.items()}
    accuracy = None
    if router is not None:
        z = router.embed(bench.table.queries)
        utility = router.predict_embedded(z, experts=bench.retrievers).utility
        order = np.argsort(-utility, axis=1, kind="stable")
        systems[ROUTED] = "routed", bench.chosen(order[:, 0])
        if len(bench.retrievers) > 1:
            systems[FUSED] = "routed", bench.fused(order[:, :2])
        accuracy = _accuracy(order[:, 0], bench.table)
        if train is not None:
            for name, values in _baselines(bench, router, z, train.only(bench.retrievers)):
                systems[name] = "baseline", values
    systems |= {name: ("bound", values) for name, values in _bounds(bench)}
    table = bench.table
    draws = bootstrap(
        np.stack([values[NDCG] for _, values in systems.values()], axis=1),
        table.labels, resamples, seed,
    )  # fmt: skip
    means = {name: draws[:, i] for i, name in enumerate(systems)}
    found = tuple(_system(n, kind, values, table) for n, (kind, values) in systems.items())
    reached = {system.name: system.macro[NDCG] for system in found}
    return RetrievalReport(
        queries={name: len(queries) for name, queries in bench.judged.items()},
        general=general,
        systems=found,
        differences=tuple(_differences(systems, means, table)),
        accuracy=accuracy,
        gap_closed={
            bound: gap_closed(reached[ROUTED], reached[general], reached[bound])
            for bound in ("dataset oracle", "instance oracle")
            if router is not None
        },
        resamples=resamples,
    )


def _baselines(
    bench: Bench, router: Router, z: FloatArray, train: RoutingDataset
) -> Iterator[tuple[str, Values]]:
    test = bench.table
    x, x_train = without_features(z), without_features(router.embed(train.queries))
    head: Callable[..., IntArray]
    for name, head in (
        ("classification head", classification_head),
        ("dataset label", dataset_label),
    ):
        yield name, bench.chosen(head(x_train, train, x))
    if (choice := category_table(train, test).choice) is not None:
        yield "category table", bench.chosen(choice)


def _bounds(bench: Bench) -> Iterator[tuple[str, Values]]:
    yield "random", {name: values.mean(axis=1) for name, values in bench.values.items()}
    if (choice := category_oracle(bench.table).choice) is not None:
        yield "dataset oracle", bench.chosen(choice)
    yield "instance oracle", bench.chosen(bench.values[NDCG].argmax(axis=1))


def _accuracy(choice: IntArray, table: RoutingDataset) -> float | None:
    """Return how often the choice is one of the best, where not all are."""
    best = winners(table.quality) > 0
    decided = best.any(axis=1)
    right = best[np.arange(len(best)), choice][decided]
    return float(right.mean()) if decided.any() else None


def _system(name: str, kind: str, values: Values, table: RoutingDataset) -> System:
    weight = macro_weights(table.labels)
    return System(
        name=name,
        kind=kind,
        datasets={
            dataset: {
                measure: float(each[table.labels == label].mean())
                for measure, each in values.items()
            }
            for label, dataset in enumerate(table.categories)
        },
        macro={measure: float(weight @ each) for measure, each in values.items()},
    )


def _differences(
    systems: Mapping[str, tuple[str, Values]],
    means: Mapping[str, FloatArray],
    table: RoutingDataset,
) -> Iterator[Difference]:
    weight = macro_weights(table.labels)
    for name in (ROUTED, FUSED):
        for other, (kind, values) in systems.items():
            if name not in systems or other in (name, FUSED) or kind == "bound":
                continue
            apart = systems[name][1][NDCG] - values[NDCG]
            found = interval(means[name] - means[other])
            yield Difference(
                system=name,
                other=other,
                value=float(weight @ apart),
                interval=found,
                verdict=verdict(found, len(table), int(np.count_nonzero(apart))),
            )
