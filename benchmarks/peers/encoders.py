"""What an encoder's quality costs in time: the same router on the vectors of each."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from category_router import ENCODER, CachedEncoder

from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.errors import ComposerError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Embedder, FloatArray, Role
from peers.curves import follow, split_areas
from peers.known import KnownEncoder
from peers.ours import Ours, median_ms, our_routers
from peers.tables import load_table
from routers.base import window
from routers.data import RoutingDataset
from routers.splits import split

__all__ = ["minilm", "run"]


def minilm(model: str | None = None) -> Embedder:
    """Return the default encoder, or a sentence-transformers model by name or folder."""
    backend = importlib.import_module("experts_registry.backends.sentence_transformers")
    spec = ENCODER if model is None else ENCODER.model_copy(update={"name": model, "model": model})
    encoder: Embedder = backend.SentenceTransformersEmbedder(spec)
    return encoder


@dataclass(frozen=True)
class StaticEncoder:
    """The package tokenlearn-static-model 0.1.1: a vector per token, averaged, no transformer."""

    digest: str = "tokenlearn-static-model 0.1.1"

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one row per text (n, d)."""
        package = importlib.import_module("static_model")
        x = np.array(package.get_embeddings(list(texts)), dtype=np.float32)
        x[~x.any(axis=1), 0] = 1.0
        unit: FloatArray = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit

    def close(self) -> None:
        """Nothing is held."""


def _all(models: Sequence[str]) -> Iterator[tuple[str, Embedder]]:
    hashing = ExpertSpec(name="hashing", kind="retriever", backend="hashing", model="hashing")
    yield "hashing (512)", HashingEmbedder(hashing)
    yield "static (tokenlearn)", StaticEncoder()
    yield "MiniLM-L6", minilm()
    for model in models:
        yield model.rpartition("/")[2], minilm(model)


def run(folder: Path, tables: Sequence[str], models: Sequence[str], ours: str) -> dict[str, Any]:
    """Print AIQ on each table's own split and the milliseconds to embed one query."""
    data = {name: load_table(folder / name) for name in tables}
    parts = {name: split(table) for name, table in data.items()}
    heads = "".join(f"{name.removeprefix('routing_'):>12}" for name in tables)
    print(f"{'encoder':28}{'dims':>6}{'ms/query':>10}{heads}    AIQ of {ours!r}, own split")
    found: dict[str, Any] = {}
    for name, encoder in _all(models):
        try:
            sample = [window(q) for p in parts.values() for q in p.test.queries[:25]]
            turn = iter(sample * 2)
            ms = median_ms(lambda e=encoder, t=turn: e.embed([next(t)], role="query"),
                           times=len(sample))  # fmt: skip
        except (ComposerError, ImportError) as error:
            print(f"{name:28}left out: {str(error).splitlines()[0][:90]}")
            continue
        cached = CachedEncoder(encoder)
        areas = {
            table: _area(p.train, p.test, KnownEncoder.of(data[table], cached), ours)
            for table, p in parts.items()
        }
        dims = cached.embed(sample[:1], role="query").shape[1]
        found[name] = {"ms": ms, "dims": dims, "aiq": areas}
        print(f"{name:28}{dims:6}{ms:10.3f}" + "".join(f"{a:12.4f}" for a in areas.values()),
              flush=True)  # fmt: skip
    if not models:
        print("a larger one: --encoders sentence-transformers/all-mpnet-base-v2, or its folder")
    return found


def _area(train: RoutingDataset, test: RoutingDataset, known: KnownEncoder, ours: str) -> float:
    routers: list[Ours] = list(our_routers(known, say=lambda _: None))
    method = next((m for m in routers if m.name == ours), routers[0])
    method.fit(train, known.queries(train))
    curve = follow(method.sweep(known.queries(test)), test)
    return float(split_areas({"ours": curve}, test, np.ones((1, len(test))))["ours"][0])
