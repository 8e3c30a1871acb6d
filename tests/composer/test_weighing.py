"""The gate at work: coupled with the choice of the expert, and after a draft."""

from composer.trace import Trail
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.schema import ExpertSpec
from routers.baselines import BestOnAverage
from routers.data import RoutingDataset
from routers.gates.data import GateData
from routers.gating import Gate
from tests.composer.libraries import library

WORDS = HashingEmbedder(
    ExpertSpec(name="words", kind="retriever", backend="hashing", model="hashing")
)
OTHER = "  - {name: other, kind: llm, backend: echo, model: echo, price: {prompt: 1}}\n"
SURE = {
    "tokens": 6.0,
    "mean_logprob": 0.0,
    "min_logprob": 0.0,
    "first_logprob": 0.0,
    "mean_entropy": 0.0,
    "max_entropy": 0.0,
}
UNSURE = SURE | {"mean_logprob": -2.0, "min_logprob": -4.0, "first_logprob": -1.0,
                 "mean_entropy": 1.0, "max_entropy": 2.0}  # fmt: skip


def row(i, query, expert, quality, **more):
    told = {"query_id": str(i), "query": query, "seconds": 0.1, "cost_usd": 0.0}
    return told | {"expert": expert, "quality": float(quality)} | more


def test_passages_bring_the_expert_forward_that_reads_them_best(tmp_path):
    rows = []
    for i in range(240):
        is_about = i % 2 == 0
        query = f"When does canteen {i} open?" if is_about else f"What is {i} plus {i + 1}?"
        rows += [
            row(i, query, "echo", not is_about),
            row(i, query, "echo+handbook", 0),
            row(i, query, "other", 0),
            row(i, query, "other+handbook", is_about),
        ]
    data = GateData.of(rows)
    Gate.fit(data, WORDS).save(tmp_path / "gate")
    alone = RoutingDataset(
        queries=data.queries, experts=data.experts, quality=data.quality[:, :, 0]
    )
    BestOnAverage(encoder=WORDS).fit(alone).save(tmp_path / "router")
    more = (
        "  - {name: both, experts: [echo, other], router: router, "
        "retrieval: {store: handbook, gate: gate}}\n"
    )
    with library(experts=OTHER, compositions=more, path=tmp_path / "e.yaml") as composer:
        read = composer.query("When does the canteen open?", model="both")
        known = composer.query("What is 4 plus 5?", model="both")
    assert (read.expert, read.decision.retrieval.store) == ("other", "handbook")
    assert read.passages
    assert "passages put 'other' first" in read.decision.reason
    assert (known.expert, known.decision.retrieval.store) == ("echo", None)


def test_a_draft_decides_where_the_question_does_not_and_is_on_the_bill(tmp_path):
    rows = []
    for i in range(160):
        is_sure, query = i * 7919 % 13 < 6, f"What is {i} plus {i + 1}?"
        rows += [
            row(i, query, "echo", is_sure, draft=SURE if is_sure else UNSURE),
            row(i, query, "echo+handbook", not is_sure),
        ]
    gate = Gate.fit(GateData.of(rows), WORDS)
    assert gate.bands[0] > 0
    gate.save(tmp_path / "gate")
    more = "  - {name: gated, experts: [echo], retrieval: {store: handbook, gate: gate}}\n"
    with library(compositions=more, path=tmp_path / "e.yaml") as composer:
        trail = Trail()
        answer = composer.run(composer.aquery("What is 500 plus 501?", model="gated", trail=trail))
        route = composer.route("What is 500 plus 501?", model="gated")
    # An echo is certain of every token.
    retrieval = answer.decision.retrieval
    assert (retrieval.stage, retrieval.store) == ("draft", None)
    assert [step.expert for step in answer.steps] == ["echo", "echo"]
    assert answer.cost == sum(step.cost for step in answer.steps) > 0
    assert trail.steps == answer.steps
    assert route.retrieval.stage == "gate"  # nobody is asked to say whom one would ask
