"""Builds in a process of their own that are killed at any point."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from composer.opened import Opened
from composer.stores.embedding import BATCH
from composer.stores.store import Store
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.registry import Registry

ROOT = Path(__file__).parents[3]
YAML = """\
version: 1
experts:
  - {name: words, kind: retriever, model: x, backend: "tests.composer.stores.test_crash:Slow",
     options: {dimensions: 64}}
encoder: words
stores:
  - {name: guides, passages: docs.jsonl, retrievers: [words], lexical: true}
"""
COUNT = 3000

pytestmark = pytest.mark.slow


class Slow(HashingEmbedder):
    """Takes a while, or as long as it is held; writes down how many texts it embeds."""

    def embed(self, texts, *, role):
        with Path(os.environ["EMBEDDED"]).open("a") as file:
            file.write(f"{len(texts)}\n")
        time.sleep(0.03)
        while Path(os.environ["EMBEDDED"]).with_name("hold").exists():
            time.sleep(0.01)
        return super().embed(texts, role=role)


@pytest.fixture
def start(tmp_path):
    """Return what starts a build; those that still run at the end are killed."""
    (tmp_path / "experts.yaml").write_text(YAML)
    started = []

    def build():
        command = [sys.executable, "-c", "from composer.cli import main; main()"]
        process = subprocess.Popen(
            [*command, "store", "build", "guides", "--quiet"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "EMBEDDED": str(tmp_path / "log")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield build
    for process in started:
        process.kill()
        process.communicate()


def write(tmp_path, edition):
    rows = [json.dumps({"id": f"{i}", "text": f"{edition} number {i}"}) for i in range(COUNT)]
    (tmp_path / "docs.jsonl").write_text("\n".join(rows))


def embedded(tmp_path):
    """Return how many texts were begun."""
    log = tmp_path / "log"
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def kill_after(process, tmp_path, texts, wait):
    """Kill a build some time after it has begun so many texts more."""
    goal, end = embedded(tmp_path) + texts, time.monotonic() + 60
    while embedded(tmp_path) < goal and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()


def opened(tmp_path):
    return Store.open(tmp_path / "stores" / "guides", name="guides")


def test_a_killed_build_goes_on_and_the_old_one_is_served(tmp_path, start, monkeypatch):
    write(tmp_path, "old")
    finish(start())
    assert embedded(tmp_path) == COUNT
    served = opened(tmp_path).digest
    (tmp_path / "log").unlink()

    write(tmp_path, "new")
    draw, kills = random.Random(0), 4
    for _ in range(kills):
        kill_after(start(), tmp_path, draw.choice([1, BATCH, 3 * BATCH]), draw.uniform(0, 0.05))
        assert opened(tmp_path).digest == served
    begun = embedded(tmp_path)
    assert begun < COUNT
    finish(start())
    # Of each kill at most the batch in flight is embedded again.
    assert COUNT <= embedded(tmp_path) <= COUNT + kills * BATCH
    store = opened(tmp_path)
    assert store.digest != served
    assert len(store) == COUNT
    monkeypatch.setenv("EMBEDDED", str(tmp_path / "log"))
    embedder = Opened(Registry.load(tmp_path / "experts.yaml")).embedder("words")
    rows, _ = store.index(embedder).search(embedder.embed(["new number 77"], role="query"), 1)
    assert store.passage(int(rows[0, 0])).id == "77"


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_whole(tmp_path, start):
    write(tmp_path, "old")
    finish(start())
    valid = {opened(tmp_path).digest}
    write(tmp_path, "new")
    finish(start())
    valid.add(opened(tmp_path).digest)
    draw = random.Random(1)
    for i in range(4):  # everything is embedded by now: kills fall into reading, indexing, swapping
        write(tmp_path, ("old", "new")[i % 2])
        process = start()
        time.sleep(draw.uniform(0.2, 2.5))
        process.kill()
        process.wait()
        assert opened(tmp_path).digest in valid
    begun = embedded(tmp_path)
    finish(start())
    assert embedded(tmp_path) == begun  # a second embedding of nothing


def test_of_two_builds_at_once_the_second_is_told(tmp_path, start):
    write(tmp_path, "old")
    (tmp_path / "hold").touch()
    first = start()
    while not embedded(tmp_path):
        time.sleep(0.01)
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "error: store 'guides': another build of it is running" in err
    (tmp_path / "hold").unlink()
    finish(first)
