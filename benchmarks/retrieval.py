"""Retrieve with us, and with plain sentence-transformers and faiss, from the same collections.

    python benchmarks/retrieval.py [FOLDER] [--sets ir_scifact ...] [--queries 300] [--json FILE]
    python benchmarks/retrieval.py [FOLDER] --registry experts.yaml

FOLDER holds the collections; by default ``shared/data`` beside this repository, or what
EXPERT_COMPOSER_SHARED says. benchmarks/README.md explains what is printed and how it is computed.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from peers.plain_retrieval import PlainRetrieval
from peers.retrieval_contest import System, asked, compared
from peers.retrieval_stores import build_widest, registry_over

from composer.judged import JudgedQuery, read_corpus, read_judged
from composer.opened import Opened
from composer.stores.searching import Searching
from experts_registry.registry import Registry
from experts_registry.sources import locate

SETS = ("ir_scifact", "ir_mbpp", "ir_xquad", "ir_argkp", "ir_medquad")
PLAIN = "sentence-transformers + faiss"
HEAD = (
    f"{'':32}{'nDCG@10':>8}{'ratio':>7}{'less plain':>11}  {'95 % interval':20}{'verdict':17}"
    f"{'ms':>7}{'x plain':>8}"
)
_TIMED = 128  # passages that are embedded to compare speeds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every collection."""
    options = parse(arguments)
    cache = Path(tempfile.gettempdir()) / "expert-composer-retrieval"
    cache.mkdir(exist_ok=True)
    results: dict[str, Any] = {}
    scores: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name in options.sets:
        if not (folder := options.folder / name).exists():
            print(f"{name}: left out, {folder} is missing")
            continue
        results[name], scores[name] = collection(folder, cache, options)
    if len(scores) > 1:
        results["all"] = together(scores)
        show("all collections, each counts the same", results["all"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def collection(
    folder: Path, cache: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare on one collection; return the figures, and nDCG@10 of each query by system."""
    corpus, queries = read_corpus(folder), chosen(folder, options.queries)
    registry = registry_over(options.registry, folder, cache)
    general = registry.retrievers[str(registry.file.encoder)]
    plain = PlainRetrieval(Path(locate(general)), corpus, cache=cache)
    opened = Opened(registry)
    build_widest(registry, opened)
    with ExitStack() as stack:
        systems = [System(PLAIN, plain.search), *ours(registry, stack)]
        found = asked(systems, queries)
    rows = {}
    for name, (ndcg, seconds) in found.items():
        rows[name] = compared(ndcg, found[PLAIN][0], [folder.name] * len(queries))
        rows[name]["ms"] = float(np.median(seconds)) * 1e3
        rows[name]["time_ratio"] = float(np.median(seconds) / np.median(found[PLAIN][1]))
    show(f"{folder.name}: {len(corpus)} passages, {len(queries)} queries", rows)
    speed = encoding_speed(plain, opened.embedder(general.name), list(corpus.values())[:_TIMED])
    print(f"embedding passages: {speed['ours']:.1f} a second, plain {speed['plain']:.1f}")
    opened.close()
    return {"systems": rows, "speed": speed}, {name: ndcg for name, (ndcg, _) in found.items()}


def chosen(folder: Path, most: int) -> tuple[JudgedQuery, ...]:
    """Return the test queries, or so many of them drawn at random."""
    queries = read_judged(folder, split="test")
    drawn = np.random.default_rng(0).permutation(len(queries))[:most]
    return tuple(queries[i] for i in sorted(drawn))


def ours(registry: Registry, stack: ExitStack) -> list[System]:
    """Return one system per store; none finds a query's vector that another computed."""

    def system(store: str) -> System:
        # Its own, for retrievers keep the vectors of recent queries; their weights are shared.
        opened = stack.enter_context(closing(Opened(registry)))
        searching = Searching(registry, opened)

        def search(query: str, k: int) -> Mapping[str, float]:
            return {p.id: p.score for p in searching.search(store, query, k).passages}

        return System(f"ours, {store}", search)

    return [system(store) for store in registry.stores]


def encoding_speed(plain: PlainRetrieval, embedder: Any, texts: list[str]) -> dict[str, float]:
    """Return passages a second, the best of three turns each."""
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain.embed(texts),
        "ours": lambda: embedder.embed(texts, role="passage"),
    }
    best = dict.fromkeys(ways, np.inf)
    for _ in range(3):
        for name, embed in ways.items():
            began = time.perf_counter()
            embed()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: len(texts) / seconds for name, seconds in best.items()}


def together(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare on all collections; each counts the same."""
    names = set.intersection(*(set(found) for found in scores.values()))
    joined = {name: np.concatenate([found[name] for found in scores.values()]) for name in names}
    labels = [label for label, found in scores.items() for _ in found[PLAIN]]
    return {name: compared(joined[name], joined[PLAIN], labels) for name in sorted(names)}


def show(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{title}\n{HEAD}", flush=True)
    for name, row in rows.items():
        line = f"{name:32}{row['ndcg']:8.4f}{row['ratio']:7.3f}"
        if name != PLAIN:
            low, high = row["interval"]
            line += f"{row['gap']:+11.4f}  [{low:+.4f}, {high:+.4f}]  {row['verdict']:17}"
        elif "ms" in row:
            line += " " * 50
        if "ms" in row:
            line += f"{row['ms']:7.2f}{row['time_ratio']:8.2f}"
        print(line, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    beside = Path(__file__).resolve().parents[2] / "shared/data"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path,
                        default=Path(os.environ.get("EXPERT_COMPOSER_SHARED", beside)))  # fmt: skip
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--queries", type=int, default=300, help="most test queries of each")
    parser.add_argument("--registry", type=Path,
                        help="take retrievers and pilot router of its first store")  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write every figure here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
