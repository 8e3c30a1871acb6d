import json
from functools import partial

import numpy as np
import pytest

from composer.opened import Opened
from composer.progress import steps
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from experts_registry.registry import Registry
from routers.data import RoutingDataset
from routers.knn import KNNRouter

LAW = ["The court heard the appeal", "A judge may dismiss the case", "The contract is void"]
FOOD = ["Boil the pasta with salt", "Bake the bread for an hour", "Fry onions in butter"]

COUNTING = "tests.composer.stores.counting:CountingEmbedder"
YAML = f"""
version: 1
encoder: words
experts:
  - {{name: words, kind: retriever, backend: "{COUNTING}", model: hashing}}
  - {{name: law, kind: retriever, backend: "{COUNTING}", model: x, options: {{dimensions: 384}}}}
  - {{name: food, kind: retriever, backend: "{COUNTING}", model: x, options: {{dimensions: 256}}}}
  - {{name: off, kind: retriever, backend: hashing, model: hashing, enabled: false}}
  - {{name: other, kind: retriever, backend: hashing, model: hashing, options: {{dimensions: 128}}}}
stores:
  - {{name: texts, passages: texts.jsonl, retrievers: [off, law, food], router: pilots}}
"""


@pytest.fixture
def registry(tmp_path):
    """Return what loads a registry of these lines in a folder of its own."""

    def load(text=YAML):
        path = tmp_path / "experts.yaml"
        path.write_text(text)
        return Registry.load(path)

    return load


@pytest.fixture
def opened(registry):
    found = Opened(registry())
    yield found
    found.close()


@pytest.fixture
def train(registry, opened):
    """Return what trains a pilot router for the store, read by a retriever's embeddings."""

    def fit(encoder="words", folder="pilots"):
        quality = np.array([[1.0, 0.0]] * len(LAW) + [[0.0, 1.0]] * len(FOOD))
        data = RoutingDataset(queries=(*LAW, *FOOD), experts=("law", "food"), quality=quality)
        router = KNNRouter(encoder=opened.embedder(encoder), neighbors=1).fit(data)
        return router.save(registry().resolve(folder))

    return fit


@pytest.fixture
def build():
    """Return what builds every store of a registry from texts by their ids."""

    def of(registry, texts):
        for name, spec in registry.stores.items():
            source = registry.resolve(spec.passages)
            rows = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
            source.write_text("\n".join(rows))
            quiet = partial(steps, quiet=True)
            build_store(registry, name, Change(), workers=False, steps=quiet)

    return of
