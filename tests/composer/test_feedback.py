import json
import logging
from contextlib import closing
from dataclasses import asdict, replace

import pytest

from composer import Composer
from composer.feedback import Feedback, FeedbackDesk, outcome_rows, query_digest
from composer.feedback_store import FeedbackStore
from experts_registry.errors import DataError, OptionError
from experts_registry.registry import Registry
from routers.data import RoutingDataset
from routers.outcomes import write_outcomes
from tests.composer.test_cli import ok, run


@pytest.fixture
def composer(registry_path):
    with Composer.load(registry_path) as composer:
        yield composer


def rows_of(composer):
    with closing(FeedbackStore(composer.registry.resolve("feedback.db"))) as store:
        return store.all()


def graded(quality=1.0, query="what?", expert="small", **fields):
    return Feedback.about(query, expert, quality, **fields)


# -- what is stored -------------------------------------------------------------------------------


def test_feedback_stores_what_a_router_can_learn_from(composer):
    answer = composer.query("three little words", model="frugal")
    composer.feedback(answer, 0.75)
    (row,) = rows_of(composer)
    assert (row.answer_id, row.query, row.composition) == (answer.id, answer.query, "frugal")
    assert (row.expert, row.quality, row.grader) == ("cheap", 0.75, "user")
    assert row.cost == pytest.approx(answer.cost)
    assert (row.prompt_tokens, row.completion_tokens) == (3, 3)
    assert (row.propensity, row.registry) == (1.0, composer.registry.digest)
    assert row.query_id == query_digest("three little words")


def test_nothing_is_written_when_nobody_gives_feedback(composer, tmp_path):
    composer.query("hello", model="cheap")
    list(composer.stream("hello", model="cheap"))
    assert [p.name for p in tmp_path.iterdir()] == ["experts.yaml"]


def test_an_answer_is_known_by_its_id_alone_streamed_or_not(composer):
    streamed = composer.stream("one two", model="cheap")
    list(streamed)
    for id_ in (composer.query("hello", model="dear").id, streamed.answer.id):
        composer.feedback(id_, 0.5, grader="door")
    assert [(r.query, r.expert, r.grader) for r in rows_of(composer)] == [
        ("hello", "dear", "door"),
        ("one two", "cheap", "door"),
    ]


def test_feedback_on_the_same_answer_replaces_also_in_another_process(composer, registry_path):
    answer = composer.query("hello", model="cheap")
    composer.feedback(answer, 0.0)
    composer.feedback(answer.id, 1.0)
    assert [r.quality for r in rows_of(composer)] == [1.0]
    with Composer.load(registry_path) as later:
        later.feedback(answer.id, 0.25)
    assert [(r.quality, r.query) for r in rows_of(composer)] == [(0.25, "hello")]


async def _async_feedback(composer):
    answer = await composer.aquery("hello", model="cheap")
    return await composer.afeedback(answer, 1)


def test_feedback_has_an_async_twin(composer):
    assert composer.run(_async_feedback(composer)).expert == "cheap"


def test_the_expert_that_stood_in_gets_the_grade_and_no_propensity(composer):
    composer.feedback(composer.query("hello", model="shaky"), 1)
    (row,) = rows_of(composer)
    assert (row.expert, row.propensity) == ("cheap", None)


@pytest.mark.parametrize("quality", [-0.1, 1.01, float("nan"), True, "good", None])
def test_a_quality_out_of_range_is_refused_and_nothing_is_written(composer, tmp_path, quality):
    answer = composer.query("hello", model="cheap")
    for which in (answer, answer.id):
        with pytest.raises(OptionError, match=r"quality: .* is not in \[0, 1\]"):
            composer.feedback(which, quality)
    assert not (tmp_path / "feedback.db").exists()


def test_an_unknown_answer_is_refused(composer, tmp_path):
    with pytest.raises(DataError, match=r"'nobody' is not known; .* last 1000 answers"):
        composer.feedback("nobody", 1)
    assert not (tmp_path / "feedback.db").exists()


def test_only_the_last_answers_are_remembered_and_only_so_much_text(composer):
    desk = FeedbackDesk(composer.registry, answers=2, characters=12)
    first, second, third = (composer.query(q, model="cheap") for q in ("one", "two", "three"))
    for answer in (first, second, third):
        desk.remember(answer)
    with pytest.raises(DataError, match="last 2 answers"):
        desk.take(first.id, 1, "user")
    assert desk.take(third.id, 1, "user").query == "three"
    desk.remember(composer.query("long enough", model="cheap"))
    with pytest.raises(DataError, match="not known"):
        desk.take(second.id, 1, "user")
    desk.close()


def test_the_file_may_name_another_database(registry_path, tmp_path):
    text = registry_path.read_text()
    for i, where in enumerate(("data/own.db", f"sqlite:///{tmp_path}/url.db")):
        registry_path.write_text(f"{text}feedback: {where}\n")
        with Composer.load(registry_path) as composer:
            composer.feedback(composer.query(f"hello {i}", model="cheap"), 1)
    assert (tmp_path / "data/own.db").exists()
    assert (tmp_path / "url.db").exists()


# -- as outcomes ----------------------------------------------------------------------------------


def test_several_grades_of_one_cell_become_their_mean():
    rows = outcome_rows(
        [
            graded(1.0, "q", "a", cost=0.02, category="law", time="2026-01-02"),
            graded(0.0, "q", "a", cost=0.04, category="math", time="2026-01-01"),
            graded(0.5, "q", "b"),
        ]
    )
    assert [(r["expert"], r["quality"], r["cost_usd"]) for r in rows] == [
        ("a", 0.5, pytest.approx(0.03)),
        ("b", 0.5, None),
    ]
    assert {(r["category"], r["grader"]) for r in rows} == {("law", "feedback")}


def test_feedback_is_read_as_a_dataset(tmp_path):
    given = [graded(i % 2, f"query {i % 4}", f"expert {i % 3}", cost=0.1) for i in range(24)]
    path = write_outcomes(tmp_path / "feedback.parquet", outcome_rows(given))
    data = RoutingDataset.load(path)
    assert data.quality.shape == (4, 3)
    assert data.cost_unit == "usd"


# -- exploration ----------------------------------------------------------------------------------

EXPLORING = """
  - name: curious
    experts: [cheap, dear]
    explore: {rate: 1.0, usd_per_day: %s}
"""


def explored(registry_path, usd, n=40):
    with registry_path.open("a") as file:
        file.write(EXPLORING % usd)
    with Composer.load(registry_path) as composer:
        answers = [composer.query(f"query {i}", model="curious") for i in range(n)]
        for answer in answers:
            composer.feedback(answer, 1)
        return answers, rows_of(composer), composer.route("query", model="curious")


def test_a_composition_that_explores_asks_others_and_records_how_likely(registry_path):
    answers, rows, plain = explored(registry_path, 1.0)
    assert {a.expert for a in answers} == {"cheap", "dear"}
    assert [r.propensity for r in rows] == pytest.approx([0.5] * len(rows), abs=0.01)
    assert "exploration" not in plain.details  # route tells whom to ask, it asks nobody


def test_exploring_stops_at_the_daily_cap_which_survives_a_restart(registry_path):
    answers, _, _ = explored(registry_path, 0.005)
    share = [a.decision.details["exploration"]["extra_usd"] for a in answers]
    assert 0 < sum(share) <= 0.005
    with Composer.load(registry_path) as later:
        assert {later.query("again", model="curious").expert for _ in range(20)} == {"cheap"}


def test_where_the_store_is_broken_the_routers_decision_stands(registry_path, tmp_path, caplog):
    (tmp_path / "feedback.db").write_text("not a database at all, but long enough to look" * 50)
    with registry_path.open("a") as file:
        file.write(EXPLORING % 1.0)
    with Composer.load(registry_path) as composer, caplog.at_level(logging.WARNING):
        assert {composer.query("hello", model="curious").expert for _ in range(9)} == {"cheap"}
    assert "does not explore" in caplog.text


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def folder(registry_path):
    return registry_path.parent


def test_what_ask_prints_can_be_graded(folder):
    asked = ok("ask", "hello there", "--model", "cheap", "--json", cwd=folder)
    out = ok("feedback", "add", "0.5", "--answer", "-", "--json", cwd=folder, stdin=asked)
    added = json.loads(out)
    assert (added["answer_id"], added["query"]) == (json.loads(asked)["id"], "hello there")
    assert added["prompt_tokens"] == 2
    ok("feedback", "add", "0.9", "--id", added["answer_id"], cwd=folder)
    (row,) = json.loads(ok("feedback", "list", "--json", cwd=folder))
    assert row == added | {"quality": 0.9, "time": row["time"]}


def test_python_and_the_command_line_store_the_same(folder, composer):
    asked = ok("ask", "hello", "--model", "cheap", "--json", cwd=folder)
    ok("feedback", "add", "1", "--answer", "-", cwd=folder, stdin=asked)
    composer.feedback(composer.query("hello", model="cheap"), 1)
    first, second = (asdict(r) for r in rows_of(composer))
    differ = {key for key in first if first[key] != second[key]}
    assert differ <= {"answer_id", "time", "seconds"}


def test_a_query_and_its_expert_can_be_graded_and_exported(folder):
    for quality in ("1", "0"):
        ok("feedback", "add", quality, "--query", "2 + 2?", "--expert", "cheap", cwd=folder)
    assert "2 + 2?" in ok("feedback", "list", cwd=folder)
    assert "1 cells" in ok("feedback", "export", "out.parquet", cwd=folder)
    assert RoutingDataset.load(folder / "out.parquet").quality.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "1"), "needs a query and the expert"),
        (("add", "2", "--query", "x", "--expert", "y"), "not in [0, 1]"),
        (("add", "1", "--query", "x", "--expert", "chap"), "did you mean 'cheap'?"),
        (("add", "1", "--id", "nobody"), "'nobody' has none yet"),
        (("add", "1", "--answer", "experts.yaml"), "is not what 'expert-composer ask --json'"),
        (("export",), "holds none"),
    ],
)
def test_a_mistake_is_one_line(folder, arguments, message):
    done = run("feedback", *arguments, cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_drift_tells_which_cell_got_worse(folder):
    rows = [
        {"query_id": f"{i}", "query": f"query {i}", "expert": "cheap", "category": "math",
         "quality": float(i % 10 < 8)}
        for i in range(300)
    ]  # fmt: skip
    write_outcomes(folder / "outcomes.parquet", rows)
    with closing(FeedbackStore(folder / "feedback.db")) as store:
        for i in range(60):
            store.add(graded(float(i % 10 < 4), f"new {i}", "cheap", category="math"))
    said = ok("feedback", "drift", cwd=folder)
    assert "cheap got worse on math: 0.80 -> 0.40" in said
    found = json.loads(ok("feedback", "drift", "--json", cwd=folder))
    assert (found["cells_judged"], len(found["alarms"])) == (1, 1)


def test_cells_gives_the_whole_budget_away(folder):
    rows = [
        {"query_id": "1", "query": "a", "expert": e, "category": "math", "quality": 1.0}
        for e in ("cheap", "dear")
    ]
    write_outcomes(folder / "outcomes.parquet", rows)
    cells = json.loads(ok("feedback", "cells", "5", "--json", cwd=folder))
    assert sum(cell["labels"] for cell in cells) == 5


def test_the_registry_is_the_only_thing_that_decides_where_feedback_lies(registry_path):
    registry = Registry.load(registry_path)
    assert FeedbackDesk(registry).store.where == str(registry_path.parent / "feedback.db")


@pytest.mark.parametrize(
    ("details", "category"),
    [
        ({"category": "math"}, "math"),
        ({"category": "math", "fallback": "of no clear category"}, None),
        ({}, None),
    ],
)
def test_the_category_is_stored_where_the_decision_is_sure_of_it(composer, details, category):
    answer = composer.query("hello", model="cheap")
    answer = replace(answer, decision=replace(answer.decision, details=details))
    assert composer.feedback(answer, 1).category == category
