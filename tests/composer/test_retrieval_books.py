"""What is written down of retrieval: the decision log, the headers, the command line."""

import json
import time
from functools import partial

import pytest
from typer.testing import CliRunner

from composer.cli.main import app
from composer.decision_log import DecisionLog
from composer.decisions import Logged
from composer.estimates import most_passages, most_read
from composer.evidence import Wish
from composer.http.headers import told
from composer.progress import steps
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from experts_registry.registry import Registry
from experts_registry.types import Prompt
from tests.composer.libraries import FACTS, REGISTRY, Shelf, library

CANTEEN = "When does the canteen open?"
CITING = (
    "  - {name: citing, kind: llm, backend: echo, model: echo, options: {reply: 'At noon [1].'}}\n"
)
CITES = "  - {name: cites, experts: [citing], retrieval: {store: handbook}}\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "experts.yaml"
    file.write_text(REGISTRY.replace("EXPERTS", CITING).replace("COMPOSITIONS", CITES))
    for name, texts in FACTS.items():
        rows = [json.dumps({"id": f"{name}-{i}", "text": t}) for i, t in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        build_store(
            Registry.load(file), name, Change(), workers=False, steps=partial(steps, quiet=True)
        )
    return file


def run(*args):
    result = CliRunner().invoke(app, [*args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_the_log_keeps_ids_and_scores_and_no_text(tmp_path):
    with library() as composer:
        answer = composer.query(CANTEEN, model="grounded")
        failed = composer.query(CANTEEN, model="plain")
    log = DecisionLog(tmp_path / "decisions.db")
    log.add(Logged.of(answer, request_id="with"))
    log.add(Logged.of(failed, request_id="without"))
    log.flush()
    kept = log.get("with")
    assert kept.decision.retrieval == answer.decision.retrieval
    assert [one.id for one in kept.decision.retrieval.found] == [p.id for p in answer.passages]
    assert kept.steps[-1].passages == 2
    assert log.get("without").decision.retrieval is None
    log.close()
    told_of = json.dumps(kept.json())
    assert kept.json()["decision"]["retrieval"]["store"] == "handbook"
    for text in FACTS["handbook"]:
        assert text not in told_of
        assert text.encode() not in (tmp_path / "decisions.db").read_bytes()


def test_a_row_of_before_there_was_retrieval_is_read():
    with library() as composer:
        row = Logged.of(composer.query("hello", model="plain"), request_id="old").row()
    decision = json.loads(row["decision"])
    del decision["retrieval"]
    steps_of_then = [
        {k: v for k, v in step.items() if k != "passages"} for step in json.loads(row["steps"])
    ]
    row |= {"decision": json.dumps(decision), "steps": json.dumps(steps_of_then)}
    assert Logged.of_row(row).decision.retrieval is None


def test_searching_is_no_overhead():
    with library(Shelf(delay=0.5)) as composer:
        answer = composer.query(CANTEEN, model="grounded")
        seconds = answer.decision.retrieval.seconds
        assert seconds >= 0.5
        headers = told(composer, [answer], time.perf_counter() - seconds - answer.seconds - 0.01)
    assert float(headers["x-composer-overhead-ms"]) < 400


def test_a_reservation_covers_what_passages_cost():
    with library() as composer:
        answer = composer.query(CANTEEN, model="grounded")
        prompt = composer.limited(Prompt.of(CANTEEN), "grounded")
        reserved = most_read(prompt) + composer.most_passages("grounded")
        assert reserved >= answer.steps[-1].usage.prompt_tokens
        assert composer.most_passages("plain") == composer.most_passages("echo") == 0
        assert composer.most_passages("shy") == 0
        assert composer.most_passages("shy", Wish(mode="always")) > 0
        for wish in (Wish(mode="never"), Wish(stores=["manual"])):
            assert composer.most_passages("grounded", wish) == 0
    assert most_passages(None, {}) == 0


def test_the_command_line_retrieves(path):
    where = ("--registry", str(path))
    found = json.loads(run("retrieve", CANTEEN, *where, "-k", "2", "--json").stdout)
    assert found["store"] == "handbook"
    assert found["passages"][0]["id"] == "handbook-1"
    table = run("retrieve", CANTEEN, *where, "--store", "handbook").stdout
    assert table.splitlines()[1].startswith("[1]")
    assert "handbook-1" in table.splitlines()[1]
    assert "searched by words" in table


def test_the_command_line_shows_passages_and_citations(path):
    ask = ("ask", CANTEEN, "--registry", str(path), "--model", "cites")
    answer = json.loads(run(*ask, "--json").stdout)
    assert answer["citations"] == [{"passage": 1, "start": 8, "end": 11}]
    assert answer["passages"][0]["id"] == "handbook-1"
    assert not answer["is_ungrounded"]
    shown = run(*ask)
    assert shown.stdout.strip() == "At noon [1]."
    assert "handbook-1" in shown.stderr
    assert "3 passages from handbook, cites [1]" in shown.stderr
    never = run(*ask, "--retrieval", "never")
    assert "handbook-1" not in never.stderr
    route = run("route", CANTEEN, "--registry", str(path), "--model", "cites")
    assert "retrieval: 3 passages from handbook, by file" in route.stdout


def test_what_a_passage_holds_cannot_drive_the_terminal():
    from composer.cli.retrieve import passage_table
    from experts_registry.passages import Passage

    shown = passage_table([Passage(id="a\x1b[2J", title="t\x07", text="x\x1b[31m\r\nred")])
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert len(shown.splitlines()) == 2


def test_validation_tells_what_is_not_built(path, tmp_path):
    from composer.checks import check_registry

    fine = " ".join(finding.text for finding in check_registry(Registry.load(path)))
    assert "not built" not in fine
    other = tmp_path / "other" / "experts.yaml"
    other.parent.mkdir()
    other.write_text(path.read_text())
    notes = [f for f in check_registry(Registry.load(other)) if "not built" in f.text]
    assert notes
    assert {note.level for note in notes} == {"note"}
