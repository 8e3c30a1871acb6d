"""Retrievers on real workers; about ten seconds to start."""

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from composer.opening import open_embedder
from composer.stores.embedding import BATCH, Batch
from composer.stores.embedding_workers import on_workers
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.errors import OptionError
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from tests.composer.stores.made import YAML, Site

pytestmark = [
    pytest.mark.ray,
    # Ray closes its sockets and temporary files in its own time.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Mortal(HashingEmbedder):
    """Dies once, the first time that any of its processes embeds the text that says so."""

    def embed(self, texts, *, role):
        for text in texts:
            path = Path(text.removeprefix("die "))
            if text.startswith("die ") and path.exists():
                path.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "refuse":
                raise OptionError("texts: one refuses")
        return super().embed(texts, role=role)


def mortal(**resources):
    return ExpertSpec(
        name="mortal",
        kind="retriever",
        backend="tests.composer.stores.test_embedding_workers:Mortal",
        model="x",
        resources={"cpus": 0.1, "replicas": 2, **resources},
    )


def batch(*texts):
    return Batch(tuple(text.encode() for text in texts), texts)


def test_the_batch_of_a_killed_worker_is_redone(tmp_path):
    (tmp_path / "once").touch()
    batches = [batch(f"text {i}", f"more {i}") for i in range(12)]
    batches.insert(3, batch("before", f"die {tmp_path / 'once'}"))
    with on_workers(mortal())(iter(batches)) as embedded:
        found = dict(embedded)
    assert not (tmp_path / "once").exists()
    assert found.keys() == set(batches)
    here = open_embedder(mortal())
    for one, x in found.items():
        assert np.array_equal(x, here.embed(one.texts, role="passage"))


def test_an_error_of_a_retriever_is_told_as_it_is():
    with (
        pytest.raises(OptionError, match="one refuses"),
        on_workers(mortal())(iter([batch("a"), batch("refuse"), batch("b")])) as embedded,
    ):
        list(embedded)


def test_a_store_that_workers_embedded_is_the_one_embedded_here(tmp_path):
    texts = {str(i): f"number {i} of many" for i in range(3 * BATCH)}
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there", YAML)
    here.jsonl(texts)
    there.jsonl(texts)
    here.build()
    registry = Registry.load(there.path)
    built = build_store(
        registry, "guides", Change(), workers=True, steps=lambda *_: nullcontext(lambda name: None)
    )
    assert built.embedded == {"words": len(texts)}
    assert there.open().digest == here.open().digest
    assert there.found("number 77") == here.found("number 77") == ["77"]
