import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from composer.cli.main import app
from composer.gate_evaluation import evaluate_gate
from composer.gate_figures import auroc, curve_of, ece_by_luck, ece_of
from composer.gate_report import gate_lines
from composer.gate_training import evaluate_saved_gate, train_gate
from experts_registry.errors import DataError
from routers.gates.data import GateData
from routers.gates.price import RetrievalPrice
from routers.gating import Gate
from routers.outcomes import write_outcomes
from routers.testing import HashingEncoder
from tests.routers.gates.conftest import halves, shuffled, two_regimes

REGISTRY = """\
version: 1
encoder: words
experts:
  - {name: toy, kind: llm, backend: echo, model: echo}
  - {name: words, kind: retriever, backend: hashing, model: hashing}
"""


@pytest.fixture(scope="module")
def report():
    train, test = halves(GateData.of(two_regimes(160, drafts=True)))
    return evaluate_gate(Gate.fit(train, HashingEncoder()), train, test)[0]


def test_rows_agree_with_one_another(report):
    never, always, oracle = (report.row(name) for name in ("never", "always", "oracle"))
    assert (never.rate, always.rate, always.recall) == (0, 1, 1)
    assert always.precision == pytest.approx(report.helps)
    assert always.quality - never.quality == pytest.approx(report.helps - report.hurts)
    assert always.per_retrieval == pytest.approx(report.helps - report.hurts)
    assert (oracle.regret, oracle.accuracy, oracle.precision) == (0, 1, 1)
    assert always.regret == pytest.approx(oracle.utility["0.02"] - always.utility["0.02"])
    assert always.utility["0.1"] == pytest.approx(always.quality - 0.1)


def test_a_gate_that_tells_the_regimes_apart_reaches_the_oracle(report):
    deployed, oracle = report.row("deployed"), report.row("oracle")
    assert deployed.utility["0.02"] >= 0.95 * oracle.utility["0.02"]
    assert deployed.to_random.low > 0
    assert report.curve.area > 0.6
    assert max(report.ece) < 0.1


def test_a_gate_without_skill_is_told_and_does_as_the_constant():
    data = GateData.of(shuffled(two_regimes(120)))
    train, test = halves(data)
    report = evaluate_gate(Gate.fit(train, HashingEncoder()), train, test)[0]
    assert report.row("deployed").quality == report.row("always").quality
    assert any("always (handbook) is deployed" in line for line in gate_lines(report))


def test_outcomes_of_other_arms_are_refused():
    train, test = halves(GateData.of(two_regimes(64)))
    gate = Gate.fit(train, HashingEncoder())
    with pytest.raises(DataError, match="the gate knows toy"):
        evaluate_gate(gate, train, replace(test, experts=("other",)))


def test_calibration_error_and_ranking_by_hand():
    assert ece_of(np.array([0.2, 0.8]), np.array([0.0, 1.0])) == pytest.approx(0.2)
    assert auroc(np.array([True, False, False]), np.array([0.5, 0.4, 0.6])) == 0.5
    assert auroc(np.array([True]), np.array([0.5])) is None
    assert ece_by_luck(np.array([0.0, 1.0])) == 0
    assert ece_by_luck(np.full(60, 0.5)) > ece_by_luck(np.full(6000, 0.5))


def test_area_of_a_perfect_ranking_is_that_of_the_oracle():
    quality = np.array([[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 5)
    gain = quality[:, 1] - quality[:, 0]
    assert curve_of(gain, quality).area == pytest.approx(1)
    assert curve_of(-gain, quality).area == pytest.approx(-1)


def test_a_saved_gate_is_judged_on_what_it_has_not_seen(tmp_path):
    data = GateData.of(two_regimes(80))
    trained = train_gate(
        data, HashingEncoder(), tmp_path / "gate", price=RetrievalPrice(), texts={}, test=0.3
    )
    (again,) = evaluate_saved_gate(tmp_path / "gate", data, HashingEncoder())
    assert again.test == trained.reports[0].test
    assert again.row("deployed") == trained.reports[0].row("deployed")
    rest = [row | {"query": f"new {row['query']}"} for row in two_regimes(40)]
    with pytest.raises(DataError, match="none of the queries"):
        evaluate_saved_gate(tmp_path / "gate", GateData.of(rest), HashingEncoder())


def test_the_command_line_trains_judges_and_draws(tmp_path):
    (tmp_path / "experts.yaml").write_text(REGISTRY)
    write_outcomes(tmp_path / "o.parquet", two_regimes(80))
    at = ["-r", str(tmp_path / "experts.yaml")]

    def run(*words):
        found = CliRunner().invoke(app, ["gate", *words, *at], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.stdout

    told = run("train", str(tmp_path / "o.parquet"), "--quiet")
    assert "stage A" in told
    assert "gate: routers/gate" in told
    found = json.loads(run("evaluate", str(tmp_path / "o.parquet"), "--json"))
    assert {row["policy"] for row in found[0]["rows"]} >= {"never", "always", "SKR-kNN", "oracle"}
    run("evaluate", str(tmp_path / "o.parquet"), "--out", str(tmp_path / "found"))
    page = (tmp_path / "found" / "gate.html").read_text()
    assert "<svg" in page
    assert "SKR-kNN" in page
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names >= {"gate.json", "gate.html", "quality-rate.png", "quality-rate.svg"}
