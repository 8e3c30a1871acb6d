"""Retrieving from stores on disk, with a trained gate: hashing encoder, echo experts."""

import gc
import json
import weakref
from functools import partial

import numpy as np
import pytest

from composer import Composer
from composer.progress import steps
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from composer.stores.store import Store
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec
from routers.data import RoutingDataset
from routers.gates.data import GateData
from routers.gating import Gate
from routers.knn import KNNRouter
from tests.composer.libraries import FACTS, REGISTRY
from tests.composer.stores.counting import EMBEDDED, CountingEmbedder

CANTEEN = "When does the canteen open?"
GATED = (
    "  - {name: gated, experts: [echo], retrieval: {store: handbook, gate: gate, k: 1}}\n"
    "  - {name: torn, experts: [echo], retrieval: {store: [manual, handbook], gate: gate}}\n"
)


def build(registry, *names):
    for name in names:
        build_store(registry, name, Change(), workers=False, steps=partial(steps, quiet=True))


def write(folder, name, texts):
    rows = [json.dumps({"id": f"{name}-{i}", "text": text}) for i, text in enumerate(texts)]
    (folder / f"{name}.jsonl").write_text("\n".join(rows))


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "experts.yaml"
    file.write_text(REGISTRY.replace("EXPERTS", "").replace("COMPOSITIONS", GATED))
    for name, texts in FACTS.items():
        write(tmp_path, name, texts)
    build(Registry.load(file), *FACTS)
    return file


def outcomes(stores=("handbook",), *, search=False):
    """Questions about the canteen need passages; sums go wrong with them."""
    rows = []
    for i in range(120):
        needs = i % 2 == 0
        query = f"When does canteen {i} open?" if needs else f"What is {i} plus {i + 1}?"
        row = {"query_id": str(i), "query": query, "seconds": 0.1, "cost_usd": 0.0}
        rows.append({**row, "expert": "echo", "quality": float(not needs)})
        for store in stores:
            helps = needs and store == "handbook"
            similarity = [0.7 if helps else 0.1, 0.0] if search else None
            rows.append(
                {
                    **row,
                    "expert": f"echo+{store}",
                    "quality": float(helps),
                    "similarity": similarity,
                    "passages": ["p"],
                }
            )
    return GateData.of(rows)


def train(path, data):
    spec = ExpertSpec(name="words", kind="retriever", backend="hashing", model="hashing")
    return Gate.fit(data, HashingEmbedder(spec)).save(path.parent / "gate")


def test_a_store_on_disk_is_searched(path):
    with Composer.load(path) as composer:
        answer = composer.query(CANTEEN, model="grounded")
        assert answer.passages[0].id == "handbook-1"
        assert answer.passages[0].retrievers == ("words",)
        assert answer.decision.retrieval.retrievers == ("words",)
        assert composer.retrieve(CANTEEN).store == "handbook"


def test_a_store_that_is_not_built_costs_only_its_passages(path):
    write(path.parent, "new", ["x"])
    text = path.read_text().replace("stores:", "stores:\n  - {name: new, passages: new.jsonl, "
                                    "retrievers: [words]}")  # fmt: skip
    text += "  - {name: unbuilt, experts: [echo], retrieval: {store: new}}\n"
    path.write_text(text)
    with Composer.load(path) as composer:
        answer = composer.query(CANTEEN, model="unbuilt")
    assert answer.text == CANTEEN
    assert answer.is_ungrounded


@pytest.mark.parametrize("search", [False, True])
def test_the_gate_retrieves_where_passages_helped(path, search):
    train(path, outcomes(search=search))
    with Composer.load(path) as composer:
        helped = composer.query(CANTEEN, model="gated")
        hurt = composer.query("What is 4 plus 5?", model="gated")
        words = composer.explain(CANTEEN, model="gated")
        forced = composer.query("What is 4 plus 5?", model="gated", retrieval="always")
    assert [p.id for p in helped.passages] == ["handbook-1"]
    assert helped.decision.retrieval.stage == "gate"
    assert helped.decision.retrieval.k == 1
    assert hurt.passages == ()
    assert hurt.decision.retrieval.stage == "gate"
    assert not hurt.is_ungrounded
    assert "echo+handbook" in words
    assert len(forced.passages) == 1


def test_the_gate_chooses_among_stores(path):
    train(path, outcomes(("handbook", "manual")))
    with Composer.load(path) as composer:
        chosen = composer.route(CANTEEN, model="torn").retrieval
        wanted = composer.route(CANTEEN, model="torn", retrieval="always").retrieval
        masked = composer.route(CANTEEN, model="torn", stores={"manual"}).retrieval
    assert chosen.store == "handbook"
    assert (wanted.store, wanted.stage) == ("handbook", "request")
    assert masked.store is None
    assert "handbook" not in str(masked.arms)


def test_a_gate_that_is_not_trained_yet_retrieves_always_and_one_that_is_damaged_never(path):
    with Composer.load(path) as composer:
        answer = composer.query(CANTEEN, model="gated")
        assert answer.passages
        assert "no gate is trained" in answer.decision.retrieval.reason
        folder = train(path, outcomes())
        assert composer.query(CANTEEN, model="gated").decision.retrieval.stage == "gate"
        (folder / "gate.json").write_text("{}")
        damaged = composer.query(CANTEEN, model="gated")
    assert damaged.is_ungrounded
    assert "ArtefactError" in damaged.decision.retrieval.reason


def test_a_rebuilt_store_is_read_without_a_reload(path):
    with Composer.load(path) as composer:
        assert composer.retrieve("zebra?", store="manual").passages[0].id != "manual-2"
        write(path.parent, "manual", [*FACTS["manual"], "The zebra sleeps in the shed."])
        build(composer.registry, "manual")
        assert composer.retrieve("Where does the zebra sleep?", store="manual").passages[0].id == (
            "manual-2"
        )


def opened(monkeypatch):
    names = []
    open_store = Store.open.__func__
    monkeypatch.setattr(
        Store,
        "open",
        classmethod(
            lambda cls, folder, *, name: names.append(name) or open_store(cls, folder, name=name)
        ),
    )
    return names


def test_a_new_edition_keeps_what_is_the_same_and_opens_what_is_new(path, monkeypatch):
    names = opened(monkeypatch)
    before = Composer.load(path)
    before.query(CANTEEN, model="grounded")
    path.write_text(path.read_text().replace("name: manual, passages: manual.jsonl",
                                             "name: guide, passages: manual.jsonl")
                    .replace("manual", "guide").replace("guide.jsonl", "manual.jsonl"))  # fmt: skip
    after = Composer.over(Registry.load(path), before=before)
    build(after.registry, "guide")
    before.close()
    with after:
        assert after.query(CANTEEN, model="grounded").passages
        assert after.retrieve("pump?", store="guide").passages
    assert names == ["handbook", "guide"]


def test_closing_frees_the_stores(path):
    composer = Composer.load(path)
    composer.retrieve(CANTEEN)
    store = weakref.ref(composer._searching()._stores["handbook"].get())
    composer.close()
    gc.collect()
    assert store() is None


@pytest.mark.parametrize("model", ["gated", "torn"])
def test_a_question_is_embedded_once_whoever_reads_it(path, model):
    counting = "tests.composer.stores.counting:CountingEmbedder"
    train(path, outcomes(("handbook", "manual"), search=True))
    data = RoutingDataset(queries=("a", "b"), experts=("echo",), quality=np.ones((2, 1)))
    spec = ExpertSpec(name="words", kind="retriever", backend=counting, model="hashing")
    KNNRouter(encoder=CountingEmbedder(spec)).fit(data).save(path.parent / "router")
    text = path.read_text().replace("backend: hashing", f"backend: '{counting}'")
    path.write_text(text.replace("experts: [echo], retrieval", "router: router, retrieval"))
    query = f"When does canteen {model} open?"
    with Composer.load(path) as composer:
        assert composer.query(query, model=model).decision.retrieval.stage == "gate"
    assert EMBEDDED["words", query] == 1


def test_of_stores_with_different_retrievers_the_nearer_passage_counts(path):
    other = (
        "  - {name: few, kind: retriever, backend: hashing, model: x, options: {dimensions: 64}}\n"
    )
    text = path.read_text().replace("stores:", f"{other}stores:", 1)
    text = text.replace("manual.jsonl, retrievers: [words]", "manual.jsonl, retrievers: [few]")
    path.write_text(text.replace("version: 1", "version: 1\nencoder: words"))
    build(Registry.load(path), "manual")
    with Composer.load(path) as composer:
        for query, store in ((CANTEEN, "handbook"), ("How is the pump reset?", "manual")):
            assert composer.query(query, model="either").decision.retrieval.store == store
            assert composer.retrieve(query).store == store
        assert composer.retrieve(CANTEEN, retriever="few").store == "manual"
