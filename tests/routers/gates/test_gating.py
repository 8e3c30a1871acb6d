import json

import numpy as np
import pytest

from experts_registry.errors import ArtefactError, DataError, OptionError
from experts_registry.types import TokenLogprob
from routers.decision import Prediction
from routers.gates.data import GateData
from routers.gates.price import RetrievalPrice
from routers.gates.reasons import NOTHING_FOUND
from routers.gating import Gate
from routers.testing import HashingEncoder
from routers.transforms import Context, transform
from tests.routers.gates.conftest import KNOWN, UNKNOWN, halves, two_regimes

STORES = ["handbook"]


class OtherEncoder(HashingEncoder):
    @property
    def digest(self) -> str:
        return "another encoder"


def test_a_saved_gate_decides_alike(gate, world, tmp_path):
    loaded = Gate.load(gate.save(tmp_path / "gate"), encoder=HashingEncoder())
    for query in world[1].queries[:6]:
        before = gate.decide(query, ["toy"], stores=STORES)
        assert loaded.decide(query, ["toy"], stores=STORES) == before


def test_loading_names_what_does_not_fit(gate, tmp_path):
    folder = gate.save(tmp_path / "gate")
    with pytest.raises(ArtefactError, match="encoder"):
        Gate.load(folder, encoder=OtherEncoder())
    header = json.loads((folder / "gate.json").read_text())
    (folder / "gate.json").write_text(json.dumps(header | {"experts": ["other"]}))
    with pytest.raises(ArtefactError, match="other arms"):
        Gate.load(folder, encoder=HashingEncoder())
    (folder / "gate.json").write_text(json.dumps(header | {"format": 0}))
    with pytest.raises(ArtefactError, match="format"):
        Gate.load(folder, encoder=HashingEncoder())
    (folder / "gate.json").write_text(json.dumps({k: v for k, v in header.items() if k != "price"}))
    with pytest.raises(ArtefactError, match="does not fit"):
        Gate.load(folder, encoder=HashingEncoder())
    with pytest.raises(ArtefactError, match="gate train"):
        Gate.load(tmp_path / "nothing", encoder=HashingEncoder())


def test_half_a_gate_is_refused(gate, tmp_path):
    folder = gate.save(tmp_path / "gate")
    (folder / "gate.safetensors").write_bytes(b"")
    with pytest.raises(ArtefactError, match="damaged"):
        Gate.load(folder, encoder=HashingEncoder())
    other = gate.repriced(RetrievalPrice())
    other.state["usd"][:] += 1
    try:
        fresh = other.save(tmp_path / "other")
    finally:
        other.state["usd"][:] -= 1
    (folder / "gate.safetensors").write_bytes((fresh / "gate.safetensors").read_bytes())
    with pytest.raises(ArtefactError, match="one training"):
        Gate.load(folder, encoder=HashingEncoder())


def test_a_decision_carries_what_it_compared(gate):
    decision = gate.decide(f"{UNKNOWN} 7?", ["toy"], stores=STORES)
    best, other = decision.arms
    assert (decision.store, decision.k, decision.stage) == ("handbook", 2, "gate")
    assert (str(best.arm), str(other.arm)) == ("toy+handbook", "toy")
    assert best.quality - best.cost > other.quality
    assert best.cost == pytest.approx(0.02)
    assert best.error >= 0
    assert gate.decide(f"{KNOWN} 7?", ["toy"], stores=STORES).k == 0


def test_an_embedding_can_stand_for_the_question(gate):
    x = gate.encoder.embed([f"{UNKNOWN} 7?"], role="query")[0]
    assert gate.decide(x, ["toy"], stores=STORES).store == "handbook"


def test_an_unseen_expert_gets_what_was_better_on_average_and_is_told(gate):
    decision = gate.decide(f"{KNOWN} 7?", ["stranger"], stores=STORES)
    assert (decision.store, decision.stage) == ("handbook", "guard")
    assert "no outcomes of expert 'stranger'" in decision.reason
    dear = gate.repriced(RetrievalPrice(per_retrieval=0.9))
    assert dear.decide(f"{KNOWN} 7?", ["stranger"], stores=STORES).store is None


def test_an_unseen_store_is_read_where_others_were_worth_it(gate):
    decision = gate.decide(f"{KNOWN} 7?", ["toy"], stores=["elsewhere"])
    assert (decision.store, decision.stage) == ("elsewhere", "guard")
    assert "no outcomes of store 'elsewhere'" in decision.reason


def test_a_store_in_which_nothing_was_found_is_not_read(gate):
    decision = gate.decide(f"{UNKNOWN} 7?", ["toy"], stores=STORES, searched={"handbook": ()})
    assert decision.store is None


def test_choosing_the_expert_and_its_passages_is_one_argmax(gate):
    table = gate.table(f"{UNKNOWN} 7?", ["toy", "plain"], stores=STORES)
    table["plain"] = gate.decide(f"{KNOWN} 7?", ["toy"], stores=STORES)
    scores = np.array([[0.1, 0.5]])
    prediction = Prediction(
        experts=("toy", "plain"), quality=scores, error=scores, cost=scores, utility=scores
    )
    context = Context(x=scores, prediction=prediction, available=np.ones((1, 2), dtype=bool))
    after, notes = transform(scores, context, [gate.transform(table)])
    rated = {r.arm.store: r.quality - r.cost for r in table["toy"].arms}
    assert after[0, 0] == pytest.approx(0.1 + rated["handbook"] - rated[None])
    assert after[0, 1] == 0.5
    assert after.argmax() == 0
    assert "'toy'" in notes[0]


def test_similarity_of_passages_decides_where_the_question_is_silent():
    """Questions are all alike, and only the search tells whether the store knows."""
    rows = [row | {"query": f"Tell me about item {i // 2}", "category": ""}
            for i, row in enumerate(two_regimes(160, searched=True))]  # fmt: skip
    gate = Gate.fit(GateData.of(rows), HashingEncoder())

    def store(found):
        return gate.decide("Tell me about item 999", ["toy"], stores=STORES, searched=found).store

    assert gate.reads_search
    assert store({"handbook": [0.8, 0.4]}) == "handbook"
    assert store({"handbook": [0.2, 0.1]}) is None


def test_drafts_decide_where_the_question_is_silent():
    rows = [row | {"query": f"Tell me about item {i // 2}", "category": ""}
            for i, row in enumerate(two_regimes(240, drafts=True))]  # fmt: skip
    train, _ = halves(GateData.of(rows))
    gate = Gate.fit(train, HashingEncoder())
    first = gate.decide("Tell me about item 999", ["toy"], stores=STORES)
    assert gate.wants_draft(first)

    def after(logprob):
        draft = [TokenLogprob("a", logprob)] * 4
        return gate.decide("Tell me about item 999", ["toy"], stores=STORES, draft=draft)

    assert after(-0.1).store is None
    assert after(-2.0).store == "handbook"
    assert after(-2.0).stage == "draft"
    assert not gate.wants_draft(after(-2.0))


def test_too_few_queries_are_refused():
    with pytest.raises(DataError, match="too few"):
        Gate.fit(GateData.of(two_regimes(10)), HashingEncoder())


def test_outcomes_of_one_way_only_are_refused():
    alone = [row for row in two_regimes(40) if row["expert"] == "toy"]
    with pytest.raises(DataError, match="with-and-without"):
        GateData.of(alone)


@pytest.mark.parametrize("name", ["per_retrieval", "quality_per_usd", "usd_per_second"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_price_is_at_least_zero(name, value):
    with pytest.raises(OptionError, match=name):
        RetrievalPrice(**{name: value})


def test_a_search_that_finds_nothing_as_near_as_in_training_is_not_read():
    data = GateData.of(two_regimes(160, searched=True, misleading=0.0))
    gate = Gate.fit(data, HashingEncoder(), price=RetrievalPrice(per_retrieval=0))
    asked = "What does paragraph of our travel expense handbook say on allowance number 5?"
    far, same = (
        gate.decide(asked, ["toy"], stores=["handbook"], searched={"handbook": found})
        for found in ([0.05, 0.01], [0.8, 0.4])
    )
    assert (far.store, far.reason) == (None, NOTHING_FOUND)
    assert same.store == "handbook"
