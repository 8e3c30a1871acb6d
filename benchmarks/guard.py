"""Count how often a guarded router is significantly below its baseline, over many resamples.

    python benchmarks/guard.py [FOLDER] [--runs 200] [--rows 1200] [--tables ...] [--router auto]

Each run draws training queries, fits the router, lets it rehearse, and compares it on queries that
were left out, with and without the guard, with the pinned baseline: the expert that is best on the
training queries, the next best, and one of the middle, in turn. Two kinds of test: the remaining
queries, and a category that the training queries do not have. "Below" means that the paired
difference in quality is more than 1.96 standard errors below zero.
"""

import argparse
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from category_router import SMALL_POOL, CachedEncoder
from peers.encoders import minilm
from peers.known import KnownEncoder
from rich.console import Console
from rich.progress import track

from experts_registry.types import FloatArray
from routers.base import Router
from routers.building import build_router
from routers.data import RoutingDataset
from routers.guard import Guard
from routers.transforms import Context, transform

TABLES = ("routing_llmrouter", "routing_mmlupro", "routing_zeroeval")


@dataclass(frozen=True)
class Run:
    """Paired differences to the baseline of one run: mean, standard error, share that leaves."""

    free: tuple[float, float]
    guarded: tuple[float, float]
    leaves: float


def main() -> None:
    """Print one line per table and kind of test."""
    args = _arguments()
    console, encoder = Console(), CachedEncoder(minilm())
    for name in args.tables:
        data = RoutingDataset.load(args.folder / name)
        if name == "routing_mmlupro":
            data = data.only(SMALL_POOL)
        data.alike  # noqa: B018  found once; every selection of rows shares it
        known = KnownEncoder.of(data, encoder)
        z = build_router("best", known, {}).embed(data.queries)
        runs: dict[str, list[Run]] = defaultdict(list)
        began = time.perf_counter()
        for seed in track(range(args.runs), f"{name}", console=console, transient=True):
            for kind in ("rest", "left-out category"):
                runs[kind].append(_run(data, known, z, kind, seed, args))
        for kind, found in runs.items():
            _show(name, kind, found)
        print(f"  {(time.perf_counter() - began) / args.runs:.1f} s a run", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(beside), help="shared data")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1200, help="training queries of a run")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--router", default="auto")
    parser.add_argument("--confidence", type=float, default=0.95)
    return parser.parse_args()


def _run(
    data: RoutingDataset,
    encoder: KnownEncoder,
    z: FloatArray,
    kind: str,
    seed: int,
    args: argparse.Namespace,
) -> Run:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data))
    if kind == "rest":
        train, test = rows[: args.rows], rows[args.rows :]
    else:
        hidden = data.labels == seed % len(data.categories)
        train, test = rows[~hidden[rows]][: args.rows], rows[hidden[rows]]
    seen = data.select(train)
    router = build_router(args.router, encoder, {})
    router.fit_embedded(z[train], seen).rehearse(seen, z=z[train])
    order = np.argsort(-np.nanmean(seen.quality, axis=0))
    baseline = data.experts[order[(0, 1, len(order) // 2)[seed % 3]]]
    guard = Guard.fit(router.state_, router.experts_, baseline, confidence=args.confidence)
    return _compare(router, guard, baseline, z[test], data.select(test))


def _compare(
    router: Router, guard: Guard, baseline: str, z: FloatArray, test: RoutingDataset
) -> Run:
    found = router.predict_embedded(z, experts=test.experts)
    available = np.ones(found.utility.shape, dtype=bool)
    context = Context(x=z, prediction=found, available=available)
    b, rows = test.experts.index(baseline), np.arange(len(test))

    def against(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        choice = scores.argmax(axis=1)
        return test.quality[rows, choice] - test.quality[:, b], choice

    free, _ = against(found.utility)
    guarded, choice = against(transform(found.utility, context, [guard])[0])
    return Run(_summary(free), _summary(guarded), float((choice != b).mean()))


def _summary(difference: FloatArray) -> tuple[float, float]:
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def _show(name: str, kind: str, runs: list[Run]) -> None:
    print(f"{name}, {kind}, {len(runs)} runs:")
    for label in ("free", "guarded"):
        mean, error = np.array([getattr(run, label) for run in runs]).T
        below = float((mean < -1.96 * error - 1e-12).mean())
        above = float((mean > 1.96 * error + 1e-12).mean())
        print(
            f"  {label:8} minus baseline {mean.mean():+.4f}, worst {mean.min():+.4f}; "
            f"significantly below in {below:.1%}, above in {above:.1%} of the runs"
        )
    print(f"  leaves the baseline for {np.mean([run.leaves for run in runs]):.0%} of the queries")


if __name__ == "__main__":
    main()
