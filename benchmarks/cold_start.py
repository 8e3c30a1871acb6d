"""Hide an expert from training, then give 20 probes of it: is it routed to better?

    python benchmarks/cold_start.py [FOLDER] [--probes 20] [--draws 5] [--hidden 8] [--router auto]

For every hidden expert the router is fitted without it, and judged on the held-out queries with all
experts as candidates: with the newcomer's prior alone, and after `Router.adopt` on probes drawn
from the training queries. Printed are the differences in AIQ (mean quality over all budgets), in
quality where cost has no weight, and in the Brier score of the newcomer's predicted quality, with
the standard error over hidden experts and draws; and that taking it away again is exact.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from category_router import CachedEncoder
from peers.encoders import minilm
from peers.known import KnownEncoder
from peers.tables import TABLES, load_table
from rich.progress import track

from composer.contenders import follow
from composer.metrics import brier
from composer.tradeoff import aiq
from experts_registry.types import FloatArray
from routers.base import Router
from routers.building import build_router
from routers.data import RoutingDataset
from routers.splits import split


def main() -> None:
    """Print one block per table."""
    args = _arguments()
    encoder = CachedEncoder(minilm())
    for name in args.tables:
        data = load_table(args.folder / name)
        known = KnownEncoder.of(data, encoder)
        parts = split(data)
        hidden = _spread(parts.train, args.hidden)
        rows = []
        for expert in track(hidden, name, transient=True):
            router = build_router(args.router, known, {}).fit(parts.train.without(expert))
            rows += _judge(router, expert, parts.train, parts.test, args)
        _show(name, len(parts.test), len(hidden), np.array(rows), args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(beside), help="shared data")
    parser.add_argument("--probes", type=int, default=20)
    parser.add_argument("--draws", type=int, default=5, help="sets of probes per hidden expert")
    parser.add_argument("--hidden", type=int, default=8, help="experts to hide, from best to worst")
    parser.add_argument("--tables", nargs="+", default=TABLES[:3])
    parser.add_argument("--router", default="auto")
    return parser.parse_args()


def _spread(train: RoutingDataset, count: int) -> list[str]:
    """Return experts to hide: the best on average, the worst, and evenly between."""
    order = np.argsort(-np.nanmean(train.quality, axis=0))
    places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    return [train.experts[order[place]] for place in places]


def _judge(
    router: Router,
    expert: str,
    train: RoutingDataset,
    test: RoutingDataset,
    args: argparse.Namespace,
) -> list[list[float]]:
    """Return, for each draw, figures with probes less those with the prior."""
    before = _figures(router, expert, test)
    rows = []
    for seed in range(args.draws):
        drawn = np.random.default_rng(seed).permutation(len(train))[: args.probes]
        adopted = router.adopt(train.select(drawn).only([expert]))
        rest = list(router.experts_)
        kept, alone = (r.predict(test.queries[:50], experts=rest) for r in (adopted, router))
        if not np.array_equal(kept.utility, alone.utility):
            raise AssertionError(f"{expert}: adopting it changed another expert's scores")
        rows.append((_figures(adopted, expert, test) - before).tolist())
    return rows


def _figures(router: Router, expert: str, test: RoutingDataset) -> FloatArray:
    contender = follow("router", router, router.embed(test.queries), test)
    found = router.predict(test.queries, experts=[expert]).quality[:, 0]
    truth = test.quality[:, test.experts.index(expert)]
    area = aiq(contender, test)
    free = contender.policy.quality.mean()
    return np.array([np.nan if area is None else area, free, brier(found, truth)])


def _show(name: str, queries: int, hidden: int, rows: FloatArray, args: argparse.Namespace) -> None:
    print(f"{name}: {hidden} experts hidden in turn, {args.probes} probes, {queries} test queries")
    for label, column in zip(("AIQ", "quality", "Brier"), rows.T, strict=True):
        by_expert = column.reshape(hidden, -1).mean(axis=1)
        error = by_expert.std(ddof=1) / np.sqrt(hidden)
        print(
            f"  {label:8} with probes less prior {column.mean():+.4f} ± {error:.4f}, "
            f"best {by_expert.max():+.4f}, worst {by_expert.min():+.4f}"
        )


if __name__ == "__main__":
    main()
