import json

import numpy as np
import pytest

from composer.judged import JudgedQuery
from composer.retriever_training.batches import Learning, batches
from composer.retriever_training.judging import cross_fitted, judged, ndcg
from composer.retriever_training.material import held_out, of_judged, of_pairs, read_pairs
from composer.retriever_training.negatives import hard_negatives
from experts_registry.errors import DataError


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_copies_of_a_query_and_of_a_passage_are_one():
    pairs = [(f"q{i}", f"p{i}") for i in range(10)]
    material = of_pairs([*pairs, (" Q3 ", "p4"), ("q3", "p3")], corpus=["p1", "more"])
    assert material.queries == tuple(f"q{i}" for i in range(10))
    assert material.passages == (*(f"p{i}" for i in range(10)), "more")
    assert material.relevant[3] == {3: 1, 4: 1}


def test_judged_queries_keep_their_grades():
    corpus = {f"d{i}": f"text {i}" for i in range(12)}
    judged_queries = [
        JudgedQuery(id=f"q{i}", text=f"q{i}", relevant={f"d{i}": 2, "d11": 1}) for i in range(10)
    ]
    material = of_judged(judged_queries, corpus)
    row = {text: i for i, text in enumerate(material.passages)}
    assert material.relevant[4] == {row["text 4"]: 2, row["text 11"]: 1}
    with pytest.raises(DataError, match="query 'q0': passage 'd0' is not in the corpus"):
        of_judged(judged_queries, {"d11": "text"})


@pytest.mark.parametrize("queries", [12, 150, 3000])
def test_held_out_queries_are_not_trained_on(queries):
    material = of_pairs((f"q{i}", f"p{i % 50}") for i in range(queries))
    parts = held_out(material, share=0.2, seed=3)
    assert sorted((*parts.train, *parts.held)) == list(range(queries))
    assert min(queries / 6, 250) <= len(parts.held) <= queries / 3
    assert parts == held_out(material, share=0.2, seed=3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no pair"),
        (['{"query": "q"}'], r":1: passage: is missing"),
        (['{"query": "q", "passage": 3}'], r":1: passage: 3 is not text"),
        (['{"query": "q", "passage": "p"}', "{"], r":2: is not JSON"),
    ],
)
def test_a_bad_file_of_pairs_is_named_with_its_line(tmp_path, lines, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_pairs(path)


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(DataError, match="1 different queries are too few"):
        of_pairs([("q", "p"), ("Q", "p2")])
    with pytest.raises(DataError, match="there is one passage"):
        of_pairs((f"q{i}", "p") for i in range(20))


def test_negatives_are_the_nearest_that_are_not_relevant_and_score_below_the_ceiling():
    rng = np.random.default_rng(0)
    queries, passages = unit(rng, 30, 16), unit(rng, 80, 16)
    relevant = [{int(np.argmax(passages @ q)): 1, 7: 1} for q in queries]
    found = hard_negatives(queries, passages, relevant, count=5, ceiling=0.8)
    for q, known, rows in zip(queries, relevant, found, strict=True):
        scores = passages @ q
        limit = 0.8 * min(scores[row] for row in known)
        allowed = [i for i in np.argsort(-scores) if i not in known and scores[i] < limit]
        assert rows.tolist() == allowed[:5]


def test_no_passage_of_a_batch_is_wrongly_a_negative():
    rng = np.random.default_rng(1)
    relevant = [{int(r): 1 for r in rng.choice(6, 2, replace=False)} for _ in range(20)]
    negatives = [np.array([r for r in range(6) if r not in known][:2]) for known in relevant]
    learning = Learning(range(20), relevant, negatives)
    seen = []
    for batch, _ in zip(batches(learning, size=5, negatives=3, seed=0), range(4), strict=False):
        seen += batch.queries.tolist()
        flat = batch.passages.ravel()
        for i, query in enumerate(batch.queries):
            assert flat[i] in relevant[query]
            assert not batch.is_relevant[i, i]
            counted = flat[~batch.is_relevant[i]]
            assert sum(row in relevant[query] for row in counted) == 1
    assert sorted(seen) == list(range(20))


def test_ndcg_is_that_of_trec_eval():
    measures = pytest.importorskip("ir_measures", reason="needs expert-composer[ir]")
    rng = np.random.default_rng(2)
    queries, passages = unit(rng, 15, 8), unit(rng, 60, 8)
    relevant = [
        {int(r): int(rng.integers(1, 4)) for r in rng.choice(60, rng.integers(1, 14), False)}
        for _ in queries
    ]
    run = {
        str(i): {str(j): float(s) for j, s in enumerate(row)}
        for i, row in enumerate(queries @ passages.T)
    }
    qrels = {str(i): {str(j): g for j, g in known.items()} for i, known in enumerate(relevant)}
    expected = {m.query_id: m.value for m in measures.iter_calc([measures.nDCG @ 10], qrels, run)}
    found = ndcg(queries, passages, relevant)
    np.testing.assert_allclose(found, [expected[str(i)] for i in range(15)], atol=1e-6)


def test_ndcg_of_fewer_passages_than_ranks():
    x = np.eye(3, dtype=np.float32)
    assert ndcg(x, x, [{0: 1}, {1: 1}, {2: 1}]).tolist() == [1.0, 1.0, 1.0]


def test_the_best_of_many_noisy_evaluations_is_not_taken_for_a_gain():
    rng = np.random.default_rng(0)
    accepted, naive = 0, 0.0
    for seed in range(40):
        history = rng.normal(0.5, 0.3, size=(12, 100))
        found = judged(history, cross_fitted(history, seed), seed)
        naive += (found.after - found.before) / 40
        accepted += found.is_better
    assert naive > 0.04
    assert accepted <= 10


def test_a_real_gain_is_seen():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 0.8, 100)
    history = np.array([base, base + rng.normal(0.1, 0.1, 100), base - 0.1])
    found = judged(history, cross_fitted(history, 0), 0)
    assert found.is_better
    assert found.gain.value == pytest.approx(0.1, abs=0.03)
    assert json.dumps(found.probability) == "1.0"


def test_queries_of_one_passage_are_held_out_together():
    pairs = [(f"question {i}", f"passage {i // 4}") for i in range(200)]
    material = of_pairs(pairs)
    parts = held_out(material, share=0.2, seed=0)
    passages = [
        {p for i in part for p in material.relevant[i]} for part in (parts.train, parts.held)
    ]
    assert not passages[0] & passages[1]
    assert len(parts.held) in range(25, 68)


def test_queries_that_one_passage_joins_are_parted_one_by_one():
    material = of_pairs((f"question {i}", f"the passage {i // 59}") for i in range(60))
    parts = held_out(material, share=0.2, seed=0)
    assert len(parts.held) == 20
    assert sorted(parts.train + parts.held) == list(range(60))
