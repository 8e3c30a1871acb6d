"""Hide an expert from training, then give 20 probes of it: is it routed to better?

    python benchmarks/cold_start.py [FOLDER] [--probes 20] [--draws 4] [--hidden 8]

For every hidden expert the router is fitted without it, and judged on the held-out queries with all
experts as candidates: with the newcomer's prior alone; after `Router.adopt` on probes drawn from
the training queries, which the other experts have answered too; on the same probes where they have
not; and after learning from all of its outcomes, which is what can be had. Printed are differences
in AIQ (mean quality over all budgets) with 95 % intervals over 1,000 resamples of the test queries,
the same for all; the share of hidden experts for which it is above 0 and below; and by how much the
Brier score of the newcomer's predicted quality falls. Taking it away again is checked to be exact.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from category_router import CachedEncoder
from peers.curves import follow, split_areas, table_draws
from peers.encoders import minilm
from peers.known import KnownEncoder
from peers.ours import Ours
from peers.tables import TABLES, load_table
from rich.progress import track

from composer.metrics import brier
from composer.statistics import interval, verdict
from experts_registry.types import FloatArray
from routers.base import Router
from routers.building import build_router
from routers.data import RoutingDataset
from routers.splits import split

RESAMPLES = 1000
Found = dict[str, list[FloatArray]]


def main() -> None:
    """Print one block per table, and one for all of them together."""
    args = _arguments()
    encoder, everything = CachedEncoder(minilm()), []
    for name in args.tables:
        data = load_table(args.folder / name)
        known = KnownEncoder.of(data, encoder)
        parts = split(data)
        found: Found = defaultdict(list)
        hidden = _spread(parts.train, args.hidden)
        for expert in track(hidden, name, transient=True):
            for key, value in _judge(expert, known, parts.train, parts.test, args).items():
                found[key].append(value)
        everything.append(found)
        print(f"{name}: {len(hidden)} experts hidden in turn, {args.probes} probes x {args.draws}, "
              f"{len(parts.test)} test queries, router {args.router!r}")  # fmt: skip
        _show(found, len(parts.test))
    if len(everything) > 1:
        print("all tables together, each counting the same:")
        means = {k: [np.mean(found[k], axis=0) for found in everything] for k in everything[0]}
        _show(means, len(parts.test), experts=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(beside), help="shared data")
    parser.add_argument("--probes", type=int, default=20)
    parser.add_argument("--draws", type=int, default=4, help="sets of probes per hidden expert")
    parser.add_argument("--hidden", type=int, default=8, help="experts to hide, from best to worst")
    parser.add_argument("--tables", nargs="+", default=TABLES[:3])
    parser.add_argument("--router", default="linear")
    return parser.parse_args()


def _spread(train: RoutingDataset, count: int) -> list[str]:
    """Return experts to hide: the best on average, the worst, and evenly between."""
    order = np.argsort(-np.nanmean(train.quality, axis=0))
    places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    return [train.experts[order[place]] for place in places]


def _judge(
    expert: str,
    known: KnownEncoder,
    train: RoutingDataset,
    test: RoutingDataset,
    args: argparse.Namespace,
) -> Mapping[str, FloatArray]:
    """Return differences to the prior alone: AIQ in each draw (1 + resamples,), and Brier (1,)."""
    router = build_router(args.router, known, {}).fit(train.without(expert))
    rest, drawn = list(router.experts_), []
    routers = {"prior": [router.adopt(train.select([]).only([expert]))]}
    for seed in range(args.draws):
        drawn.append(np.random.default_rng(seed).permutation(len(train))[: args.probes])
    routers["probes less prior"] = [router.adopt(train.select(rows)) for rows in drawn]
    routers["without the others' answers"] = [
        router.adopt(train.select(rows).only([expert])) for rows in drawn
    ]
    routers["all outcomes less prior"] = [build_router(args.router, known, {}).fit(train)]
    for adopted in routers["probes less prior"]:
        kept, alone = (r.predict(test.queries[:50], experts=rest) for r in (adopted, router))
        if not np.array_equal(kept.utility, alone.utility):
            raise AssertionError(f"{expert}: adopting it changed another expert's scores")
    areas = {key: _areas(found, known, test) for key, found in routers.items()}
    fits = {key: _brier(found, expert, test) for key, found in routers.items()}
    result = {key: area - areas["prior"] for key, area in areas.items() if key != "prior"}
    return result | {"Brier": np.array([fits["probes less prior"] - fits["prior"]])}


def _areas(routers: Sequence[Router], known: KnownEncoder, test: RoutingDataset) -> FloatArray:
    """Return the mean AIQ of these routers on the queries, and on each resample of them."""
    queries = known.queries(test)
    curves = {
        str(i): follow(Ours(name="", router=router).sweep(queries, experts=test.experts), test)
        for i, router in enumerate(routers)
    }
    draws = table_draws(test, RESAMPLES, seed=0)
    return np.mean(list(split_areas(curves, test, draws).values()), axis=0)


def _brier(routers: Sequence[Router], expert: str, test: RoutingDataset) -> float:
    truth = test.quality[:, test.experts.index(expert)]
    found = (r.predict(test.queries, experts=[expert]).quality[:, 0] for r in routers)
    return float(np.mean([brier(predicted, truth) for predicted in found]))


def _show(found: Mapping[str, list[FloatArray]], queries: int, *, experts: bool = True) -> None:
    for key, values in found.items():
        each = np.array([value[0] for value in values])
        if key == "Brier":
            line = f"  {'Brier, probes less prior':34}{each.mean():+.4f}"
        else:
            bounds = interval(np.mean(values, axis=0)[1:])
            line = f"  {f'AIQ, {key}':34}{each.mean():+.4f} [{bounds.low:+.4f}, {bounds.high:+.4f}]"
            line += f" {verdict(bounds, queries)}"
        if experts:
            above, below = (int((sign * each > 5e-5).sum()) for sign in (1, -1))
            line += f"; of {len(each)} experts {above} above 0, {below} below"
            line += f", best {each.max():+.4f}, worst {each.min():+.4f}"
        print(line)


if __name__ == "__main__":
    main()
