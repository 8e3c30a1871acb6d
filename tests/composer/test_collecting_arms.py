import asyncio
from collections import Counter

import pytest

from composer.collect import collect_columns
from composer.collecting_arms import arm_columns, asking_arms, search_all
from composer.graders import Contains
from composer.handouts import Handouts
from composer.queries import Query
from composer.stores.retrieved import Retrieved
from experts_registry.passages import Passage
from experts_registry.schema import ExpertSpec, Price
from experts_registry.types import Generation, Prompt, TokenLogprob, Usage
from routers.decision import Candidate, Decision
from routers.gates.data import GateData
from routers.outcomes import read_outcomes

PASSAGES = {"lunch": "Lunch is at noon.", "dinner": "Dinner is at seven."}


class Library:
    """A store of two passages, searched by a word."""

    def __init__(self, passages=PASSAGES) -> None:
        self.passages = passages

    def __call__(self, store: str, query: str, k: int) -> Retrieved:
        found = [
            Passage(id=name, text=text, store=store)
            for name, text in sorted(self.passages.items(), key=lambda p: p[0] not in query)
        ]
        candidates = (Candidate("a", 0.8, 0.0), Candidate("b", 0.5, 0.0))
        return Retrieved(
            passages=tuple(found[:k]),
            store=store,
            decision=Decision(("a",), (), "", candidates=candidates),
            similarity=(0.9, 0.1),
        )


class Reader:
    """An expert that knows only what it reads; counts its calls."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def __call__(self, expert: str, prompt: Prompt) -> Generation:
        self.asked[expert] += 1
        text = prompt.messages[-1].content
        says = "noon" if "noon" in text else "no idea"
        sure = (TokenLogprob("no", -0.7),) if prompt.sampling.logprobs else None
        tokens = Usage(prompt_tokens=len(text), completion_tokens=2)
        return Generation(text=says, usage=tokens, logprobs=sure)


def expert(**fields) -> ExpertSpec:
    return ExpertSpec(
        name="reader", kind="llm", backend="echo", model="echo",
        price=Price(prompt=1.0, completion=1.0), **fields,
    )  # fmt: skip


def collect(out, call, *, library=None, k=1, **fields):
    queries = [
        Query(
            id=f"q{i}", prompt=Prompt.of(f"When is {meal} {i}?"), grader=Contains(answers=(time,))
        )
        for i, (meal, time) in enumerate((("lunch", "noon"), ("dinner", "seven")))
    ]
    found = search_all(queries, ["kitchen"], library or Library(), k)
    columns = arm_columns(queries, {"reader": expert(**fields)}, found)
    return asyncio.run(collect_columns(columns, asking_arms(call), out))


def test_each_query_is_asked_without_and_with_passages(tmp_path):
    call = Reader()
    summary = collect(tmp_path / "o.parquet", call)
    assert (summary.cells, call.asked) == (4, Counter(reader=4))
    rows = {(r["query_id"], r["expert"]): r for r in read_outcomes(tmp_path / "o.parquet")}
    alone, behind = rows["q0", "reader"], rows["q0", "reader+kitchen"]
    assert (alone["quality"], behind["quality"]) == (0.0, 1.0)
    assert alone["query"] == behind["query"] == "When is lunch 0?"
    assert (behind["passages"], behind["similarity"]) == (["lunch"], [0.9, 0.1])
    assert behind["margin"] == pytest.approx(0.3)
    assert alone["passages"] is None
    assert behind["cost_usd"] > alone["cost_usd"]  # what is read is paid for
    assert alone["draft"]["mean_logprob"] == pytest.approx(-0.7)
    assert behind["draft"] is None


def test_finished_cells_are_not_asked_again_unless_other_passages_were_found(tmp_path):
    call, out = Reader(), tmp_path / "o.parquet"
    collect(out, call)
    assert collect(out, call).kept == 4
    other = Library({**PASSAGES, "lunch": "Lunch is at one."})
    summary = collect(out, call, library=other)
    assert (summary.kept, summary.asked) == (3, 1)
    rows = {(r["query_id"], r["expert"]): r for r in read_outcomes(out)}
    assert rows["q0", "reader+kitchen"]["quality"] == 0.0


def test_an_expert_that_tells_no_log_probabilities_is_not_asked_for_them(tmp_path):
    collect(tmp_path / "o.parquet", Reader(), offers=("text",))
    rows = read_outcomes(tmp_path / "o.parquet")
    assert [row["draft"] for row in rows] == [None] * 4


def test_passages_that_do_not_fit_the_window_are_left_out_and_the_question_is_not(tmp_path):
    wide = Library({"lunch": "Lunch is at noon.", "dinner": "Dinner. " * 500})
    collect(tmp_path / "o.parquet", Reader(), library=wide, k=2, context_window=400)
    rows = {(r["query_id"], r["expert"]): r for r in read_outcomes(tmp_path / "o.parquet")}
    assert rows["q0", "reader+kitchen"]["passages"] == ["lunch"]
    assert rows["q1", "reader+kitchen"]["passages"] == []


@pytest.mark.parametrize("window", [600, 700, 800])
def test_an_expert_reads_while_collecting_what_it_reads_when_it_serves(tmp_path, window):
    texts = {"lunch": "\u5348\u9910" * 100, "dinner": "Dinner is late. " * 40, "tea": "Tea. " * 90}
    collect(tmp_path / "o.parquet", Reader(), library=Library(texts), k=3, context_window=window)
    (row,) = (r for r in read_outcomes(tmp_path / "o.parquet")
              if (r["query_id"], r["expert"]) == ("q0", "reader+kitchen"))  # fmt: skip
    found = Library(texts)("kitchen", row["query"], 3).passages
    served = Handouts(found).of(expert(context_window=window), Prompt.of(row["query"]))
    assert row["passages"] == [passage.id for passage in served.passages]
    assert 0 < len(row["passages"]) < 3


def test_a_gate_reads_what_was_collected(tmp_path):
    collect(tmp_path / "o.parquet", Reader())
    data = GateData.load(tmp_path / "o.parquet")
    assert (data.experts, data.stores, data.depth) == (("reader",), ("kitchen",), 2)
    assert data.quality[:, 0].tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert data.search[0, 0].tolist() == pytest.approx([0.9, 0.8, 0.5, 0.3])
    assert data.draft[0, 0, 0] == 1
