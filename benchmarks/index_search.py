"""How long a search of many passages takes, and what the quick kinds of index miss.

    python benchmarks/index_search.py [--passages 100000] [--dimensions 384] [--vectors FILE.npy]

Prints, for every kind of index that a store can have, the time to build it, the milliseconds of
one query at a time and the ratio to `flat` in the same run, recall of the ten nearest, and size.
The queries take turns among the kinds, so that a slow moment of the machine hits all of them.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np

from composer.stores.disk import file_digest
from experts_registry.index import VectorIndex
from experts_registry.retrieval_schema import IndexSpec
from experts_registry.types import FloatArray

K = 10
TOPICS = 1000
SPREAD = 0.9  # length of the noise around a topic, whose own length is 1
TARGET = 5.0  # milliseconds a query, for the kind that `auto` chooses
KINDS = ("flat", "auto", "ivf", "pq")


@dataclass
class Measured:
    """A kind of index, and what was measured of it."""

    name: str
    index: VectorIndex
    built: float
    megabytes: float
    seconds: list[float] = field(default_factory=list)
    found: list[set[int]] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """The median of a query."""
        return 1000 * float(np.median(self.seconds))


def made_up(passages: int, queries: int, dimensions: int) -> tuple[FloatArray, FloatArray]:
    """Return unit rows around topics that are themselves near others, and queries like them."""
    draw = np.random.default_rng(0)
    fields = _unit(draw.standard_normal((TOPICS // 20, dimensions)))
    topics = _unit(fields.repeat(20, axis=0) + _unit(draw.standard_normal((TOPICS, dimensions))))
    near = topics[draw.integers(TOPICS, size=passages + queries)]
    # The noise of real embeddings lies in few directions, fewer than they have numbers.
    directions = _unit(draw.standard_normal((dimensions // 4, dimensions)))
    noise = _unit(draw.standard_normal((len(near), len(directions))) @ directions)
    x = _unit(near + SPREAD * noise)
    return x[:passages], x[passages:]


def grown(x: FloatArray, passages: int, queries: int) -> tuple[FloatArray, FloatArray]:
    """Return real rows, and between them as many mixtures of two of the same as are wanted."""
    draw = np.random.default_rng(0)
    x = _unit(x[draw.permutation(len(x))])
    own, asked = x[queries:], x[:queries]
    parts = [own]
    while sum(map(len, parts)) < passages:
        a, b = draw.integers(len(own), size=(2, len(own)))
        parts.append(_unit(own[a] + draw.uniform(0.1, 0.6, (len(own), 1)) * own[b]))
    return np.concatenate(parts)[:passages], asked


def measure(x: FloatArray, queries: FloatArray, kinds: Sequence[str] = KINDS) -> list[Measured]:
    """Build every kind, write and map it as a store does, and let the queries take turns."""
    with TemporaryDirectory() as folder:
        saved = [_saved(x, kind, Path(folder)) for kind in kinds]
        built = [_opened(*one) for one in saved]
        for query in queries:
            for one in built:
                began = time.perf_counter()
                rows, _ = one.index.search(query[None], K)
                one.seconds.append(time.perf_counter() - began)
                one.found.append(set(rows[0].tolist()))
    return built


def recall(one: Measured, flat: Measured) -> float:
    """Return the share of the truly nearest that were found."""
    pairs = zip(one.found, flat.found, strict=True)
    return float(np.mean([len(a & b) / len(b) for a, b in pairs]))


def _saved(x: FloatArray, kind: str, folder: Path) -> tuple[str, str, Path, float]:
    """Build an index and write it; return its name, type, file and seconds."""
    began = time.perf_counter()
    index = VectorIndex.build(x, IndexSpec(type=kind))
    seconds = time.perf_counter() - began
    index.save(folder / kind)
    name = f"{kind} ({index.type})" if kind == "auto" else kind
    return name, index.type, folder / kind, seconds


def _opened(name: str, kind: str, path: Path, built: float) -> Measured:
    """Map an index as a store does, which first reads the file to compare it with its digest."""
    file_digest(path)
    index = VectorIndex.open(path, type=kind)
    return Measured(name, index, built, path.stat().st_size / 2**20)


def _unit(x: FloatArray) -> FloatArray:
    rows: FloatArray = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384, help="of made-up vectors")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--vectors", type=Path, help="real ones, an array in a .npy file")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS[1:]), help="besides flat")
    options = parser.parse_args()
    if options.vectors:
        x, queries = grown(np.load(options.vectors), options.passages, options.queries)
    else:
        x, queries = made_up(options.passages, options.queries, options.dimensions)
    print(f"{len(x):,} vectors of {x.shape[1]}, faiss {faiss.__version__}, {os.cpu_count()} cores")
    measured = measure(x, queries, ["flat", *options.kinds])
    flat = measured[0]
    print("| index | build s | MiB | ms a query (p95) | of flat | recall@10 |")
    print("|---|---|---|---|---|---|")
    for one in measured:
        p95 = 1000 * np.percentile(one.seconds, 95)
        print(
            f"| {one.name} | {one.built:.1f} | {one.megabytes:.0f} "
            f"| {one.milliseconds:.2f} ({p95:.2f}) | {one.milliseconds / flat.milliseconds:.3f} "
            f"| {recall(one, flat):.3f} |"
        )
    for one in measured:
        if one.name.startswith("auto"):
            is_met = "below" if one.milliseconds < TARGET else "ABOVE"
            print(f"auto: {one.milliseconds:.2f} ms a query, {is_met} {TARGET:g} ms")


if __name__ == "__main__":
    main()
