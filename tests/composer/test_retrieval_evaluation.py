"""Retrievers are compared alone, routed and fused, with the baselines of the paper."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from composer.cli.main import app as whole
from composer.cli.retrievers import app
from composer.judged import JudgedQuery
from composer.retrieval_evaluation import Bench, evaluate_retrievers
from composer.retrieval_measures import NDCG
from composer.retrieval_report import retrieval_lines
from routers.data import RoutingDataset
from routers.pilot import PilotRouter
from routers.testing import HashingEncoder
from tests.composer.judged_folder import write_judged

FIRST = ["kara", "limen", "posis", "tunor", "vexa", "kalim", "poten", "turis"]
SECOND = ["bodum", "zafir", "gelno", "hudig", "mobat", "ruvok", "dogim", "fazul"]


def planted(n=60, seed=0):
    """Two datasets; each retriever finds the passage first on its own, and fourth elsewhere."""
    rng = np.random.default_rng(seed)
    judged, lists = {}, {}
    for own, (dataset, words) in enumerate((("first", FIRST), ("second", SECOND))):
        texts = [" ".join(rng.choice(words, size=6)) + f" {i}" for i in range(n)]
        judged[dataset] = [
            JudgedQuery(id=f"q{i}", text=text, relevant={"r": 1}) for i, text in enumerate(texts)
        ]
        ranks = {"general": 2, "one": 1 if own == 0 else 4, "two": 1 if own == 1 else 4}
        lists[dataset] = {
            name: [{d: -float(i) for i, d in enumerate(_list(rank))} for _ in texts]
            for name, rank in ranks.items()
        }
    return Bench(judged, lists)


def _list(rank):
    names = [f"n{i}" for i in range(9)]
    return [*names[: rank - 1], "r", *names[rank - 1 :]]


@pytest.fixture(scope="module")
def report():
    train, test = planted(seed=1), planted(seed=2)
    data = RoutingDataset(
        queries=train.table.queries,
        experts=train.table.experts,
        quality=train.table.quality,
        category=train.table.category,
        ids=train.table.ids,
    )
    router = PilotRouter(encoder=HashingEncoder()).fit(data)
    return evaluate_retrievers(test, general="general", router=router, train=data, resamples=500)


def test_routing_beats_every_single_retriever(report):
    assert report.system("one").macro[NDCG] == pytest.approx((1 + 1 / np.log2(5)) / 2)
    assert report.system("routed").macro[NDCG] > 0.95
    against = {d.other: d for d in report.differences if d.system == "routed"}
    assert {"general", "one", "two"} <= against.keys()
    assert all(against[name].verdict == "better" for name in ("general", "one", "two"))
    assert report.accuracy > 0.9
    assert report.gap_closed["dataset oracle"] > 0.9


def test_bounds_and_baselines_are_shown_beside_it(report):
    kinds = {system.name: system.kind for system in report.systems}
    assert kinds["classification head"] == kinds["dataset label"] == "baseline"
    assert report.system("dataset oracle").macro[NDCG] == pytest.approx(1)
    assert report.system("instance oracle").macro["MRR@10"] == pytest.approx(1)
    mean = np.mean([report.system(name).macro[NDCG] for name in ("general", "one", "two")])
    assert report.system("random").macro[NDCG] == pytest.approx(mean)


def test_fused_lists_are_ranked_by_reciprocal_rank(report):
    # Ranks 1 and 2, or 1 and 4: the passage is before all that only share a list with it.
    assert report.system("routed, top 2 fused").macro["Recall@10"] == pytest.approx(1)
    assert report.system("routed, top 2 fused").macro[NDCG] > report.system("general").macro[NDCG]


def test_a_report_is_json_and_lines(report):
    assert json.loads(json.dumps(report.to_json()))["general"] == "general"
    lines = "\n".join(retrieval_lines(report))
    assert "routed minus general" in lines


EXPERTS = """\
version: 1
encoder: base
experts:
  - {name: base, kind: retriever, backend: hashing, model: base, options: {dimensions: 64}}
  - {name: tiny, kind: retriever, backend: hashing, model: tiny, options: {dimensions: 8}}
"""


def test_the_commands_score_train_and_evaluate(tmp_path):
    registry, out = tmp_path / "experts.yaml", tmp_path / "scores.parquet"
    registry.write_text(EXPERTS)
    folders = [
        write_judged(tmp_path / name, words, seed=i)
        for i, (name, words) in enumerate((("first", FIRST), ("second", SECOND)))
    ]
    run = CliRunner()
    for folder in folders:
        told = run.invoke(
            app, ["score", str(folder), "-r", str(registry), "-o", str(out), "--json"]
        )
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["computed"] == 80
    told = run.invoke(
        whole, ["train", "--router", "pilot", "--outcomes", str(out), "--registry", str(registry)]
    )
    assert told.exit_code == 0, told.output
    assert "'router: routers/pilot' in a store" in told.output
    router = tmp_path / "routers/pilot"
    options = ["-r", str(registry), "--router", str(router), "--outcomes", str(out), "--json"]
    told = run.invoke(app, ["evaluate", *map(str, folders), *options])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    names = [system["name"] for system in found["systems"]]
    assert names[:3] == ["base", "tiny", "routed"]
    assert "dataset label" in names
    assert found["queries"] == {"first": 20, "second": 20}
