"""What do words and text features add to the embedding?

    python benchmarks/what_is_read.py [FOLDER] [--tables ...] [--routers auto linear] [--seeds 2]

Each router is fitted on the same splits four times: on the embedding alone, with the words, with
the features, with both. Printed are the AIQ (mean quality over all budgets) and the difference to
the embedding alone with a 95 % interval over 1,000 resamples of the table's queries, as in
routers_vs_peers.py; how often a classifier of the categories is right; and the share of the
variance of an expert's cost that is predicted (median over the experts). Of several tables also the
mean of their differences, each resampled by itself.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from category_router import CachedEncoder
from peers.curves import follow, split_areas, table_draws
from peers.encoders import minilm
from peers.known import KnownEncoder
from peers.ours import Ours
from peers.tables import TABLES, load_table
from rich.progress import track

from composer.statistics import interval, verdict
from experts_registry.types import FloatArray
from routers.base import Router
from routers.building import build_router
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.features import FEATURES
from routers.splits import Split, split
from routers.words import WORDS

RESAMPLES = 1000
READ = {
    "embedding": (False, False),
    "with words": (True, False),
    "with features": (False, True),
    "with both": (True, True),
}


def main() -> None:
    """Print one block per table, and one for all of them together."""
    args = _arguments()
    encoder, gaps = CachedEncoder(minilm()), []
    for name in args.tables:
        data = load_table(args.folder / name)
        known = KnownEncoder.of(data, encoder)
        draws, row = table_draws(data, RESAMPLES, seed=0), {q: i for i, q in enumerate(data.ids)}
        print(f"{name}: {len(data)} queries, the table's own split and {args.seeds} random ones")
        areas: dict[tuple[str, str], list[FloatArray]] = {}
        seen: dict[str, list[tuple[float, float]]] = {}
        for seed in track(range(args.seeds + 1), name, transient=True):
            parts = split(data) if seed == 0 else split(replace(data, split=()), seed=seed)
            drawn = draws[:, [row[query] for query in parts.test.ids]]
            for what in READ:
                for kind in args.routers:
                    router = build_router(kind, known, {})
                    area = _area(router, what, parts, drawn)
                    areas.setdefault((kind, what), []).append(area)
                seen.setdefault(what, []).append(_seen(known, what, parts))
        gaps.append(_gaps(areas))
        _show(areas, gaps[-1], seen, len(data))
    if len(gaps) > 1:
        print("all of them together, less the embedding alone:")
        for key in gaps[0]:
            gap = np.mean([each[key] for each in gaps], axis=0)
            print(f"  {key[0]:10} {key[1]:14} {_said(gap, len(data))}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(beside), help="shared data")
    parser.add_argument("--tables", nargs="+", default=TABLES[:3])
    parser.add_argument("--routers", nargs="+", default=("auto", "linear"))
    parser.add_argument("--seeds", type=int, default=2, help="random splits beside the own one")
    return parser.parse_args()


def _area(router: Router, what: str, parts: Split, drawn: FloatArray) -> FloatArray:
    """Return the AIQ on the test queries and on each resample of them (1 + resamples,)."""
    train, test = (_read(router, part, what) for part in (parts.train, parts.test))
    router.fit_embedded(train, parts.train)
    curve = follow(Ours(name="", router=router).swept(test), parts.test)
    return split_areas({"": curve}, parts.test, drawn)[""]


def _read(router: Router, data: RoutingDataset, what: str) -> FloatArray:
    """Return z with what is not read set to 0; the embedding alone has length 1 again."""
    words, features = READ[what]
    z = np.array(router.embed(data.queries))
    f, w = len(FEATURES), WORDS
    if not words:
        z[:, : -f - w] *= np.sqrt(2)
        z[:, -f - w : -f] = 0
    if not features:
        z[:, -f:] = 0
    return z


def _seen(known: KnownEncoder, what: str, parts: Split) -> tuple[float, float]:
    """Return the share of categories recognised, and that of the variance of costs."""
    router = CategoryRouter(encoder=known, max_fallback=0.0)
    train, test = (_read(router, part, what) for part in (parts.train, parts.test))
    router.fit_embedded(train, parts.train)
    top = router.categorise(test).probabilities.argmax(axis=1)
    right = np.mean(
        [router.categories_[c] == t for c, t in zip(top, parts.test.category, strict=True)]
    )
    linear = build_router("linear", known, {"penalty": 100.0}).fit_embedded(train, parts.train)
    cost = linear.predict_embedded(test, experts=parts.test.experts).cost
    left = ((parts.test.cost - cost) ** 2).sum(axis=0)
    spread = ((parts.test.cost - parts.train.cost.mean(axis=0)) ** 2).sum(axis=0)
    return float(right), float(np.median(1 - left / spread))


def _gaps(areas: dict[tuple[str, str], list[FloatArray]]) -> dict[tuple[str, str], FloatArray]:
    """Return the differences to the embedding alone, means over the splits (1 + resamples,)."""
    mean = {key: np.mean(found, axis=0) for key, found in areas.items()}
    plain = "embedding"
    return {key: area - mean[key[0], plain] for key, area in mean.items() if key[1] != plain}


def _show(
    areas: dict[tuple[str, str], list[FloatArray]],
    gaps: dict[tuple[str, str], FloatArray],
    seen: dict[str, list[tuple[float, float]]],
    queries: int,
) -> None:
    for what, found in seen.items():
        right, explained = np.mean(found, axis=0)
        print(f"  {what:14} categories recognised {right:.1%}, costs explained {explained:.1%}")
        for kind, _ in filter(lambda key: key[1] == what, areas):
            line = f"    {kind:10} AIQ {np.mean(areas[kind, what], axis=0)[0]:.4f}"
            if (kind, what) in gaps:
                line += f"  {_said(gaps[kind, what], queries)}"
            print(line)


def _said(gap: FloatArray, queries: int) -> str:
    found = interval(gap[1:])
    return f"{gap[0]:+.4f} [{found.low:+.4f}, {found.high:+.4f}] {verdict(found, queries)}"


if __name__ == "__main__":
    main()
