"""The command line as a user types it."""

import io
import json
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from composer.cli import main

VERBS = (
    *("init", "validate", "schema", "experts", "collect", "train", "evaluate"),
    *("route", "ask", "chat", "demo", "version", "doctor"),
)


OWN_ROUTER = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from routers.baselines import BestOnAverage
if TYPE_CHECKING:
    from nowhere import Something

@dataclass(kw_only=True)
class Own(BestOnAverage):
    where: Path | None = None
    what: Something | None = None
"""


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments, cwd, stdin=""):
    """Run `main` as the console script does, in this process: it is quicker than a new one."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["expert-composer", *map(str, arguments)]
    pipe, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    path = sys.path[:]
    try:
        with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv, sys.stdin, sys.path[:] = argv, pipe, path
    return Done(code, out.getvalue(), err.getvalue())


def ok(*arguments, cwd, **options):
    done = run(*arguments, cwd=cwd, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def starter(tmp_path_factory) -> Path:
    """A folder where a newcomer has run init, collect and train."""
    folder = tmp_path_factory.mktemp("starter")
    ok("init", cwd=folder)
    ok("collect", "--local", "--json", cwd=folder)
    ok("train", cwd=folder)
    return folder


def test_help_names_every_verb_and_loads_nothing_heavy(tmp_path):
    out = ok("--help", cwd=tmp_path)
    assert all(verb in out for verb in VERBS)
    code = (
        "import sys; sys.argv = ['expert-composer', '--help']\n"
        "from composer.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'ray', 'httpx', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, tmp_path):
    assert "Usage:" in ok(verb, "--help", cwd=tmp_path)


def test_init_writes_files_that_validate_and_never_replaces_them(tmp_path):
    ok("init", cwd=tmp_path)
    assert json.loads(ok("validate", "--json", cwd=tmp_path))["valid"]
    again = run("init", cwd=tmp_path)
    assert again.returncode == 1
    assert "exists; use --force" in again.stderr


def test_the_starter_goes_from_questions_to_routed_answers(starter):
    decision = json.loads(ok("route", "--json", "Say the word lighthouse.", cwd=starter))
    assert decision["experts"] == ["parrot"]
    assert decision["router"] == "auto"
    assert {c["expert"] for c in decision["candidates"]} == {"parrot", "oracle"}
    answer = json.loads(ok("ask", "--json", "What is 17 plus 25?", cwd=starter))
    assert (answer["expert"], answer["text"]) == ("oracle", "The answer is 42.")
    assert answer["cost_usd"] > 0
    words = ok("route", "--explain", "What is 40 plus 2?", cwd=starter)
    assert "otherwise: parrot" in words
    assert "±" in words


def test_collect_pays_for_no_cell_twice(starter):
    again = json.loads(ok("collect", "--local", "--json", cwd=starter))
    assert again["asked"] == 0


def test_a_trained_router_can_be_evaluated_after_an_expert_came_and_one_went(tmp_path):
    ok("init", cwd=tmp_path)
    ok("collect", "--local", "--json", cwd=tmp_path)
    before = ok("train", "--json", cwd=tmp_path)
    ok("experts", "add", "mimic", "--backend", "echo", "--model", "echo", cwd=tmp_path)
    assert "mimic" in ok("route", "--explain", "Say the word lighthouse.", cwd=tmp_path)
    ok("collect", "--local", "--expert", "mimic", "--json", cwd=tmp_path)
    report = json.loads(ok("evaluate", "--json", cwd=tmp_path))
    assert report["queries"] == json.loads(before)["report"]["queries"]
    ok("experts", "remove", "oracle", "--force", cwd=tmp_path)
    words = ok("route", "--explain", "What is 40 plus 2?", cwd=tmp_path)
    assert "oracle, which would come first, is not among the candidates" in words


def test_training_twice_on_newly_collected_outcomes_gives_the_same_router(tmp_path):
    states = []
    for name in ("one", "two"):
        ok("init", name, cwd=tmp_path)
        ok("collect", "--local", "--json", cwd=tmp_path / name)
        ok("train", cwd=tmp_path / name)
        states.append((tmp_path / name / "routers/auto/state.safetensors").read_bytes())
    assert states[0] == states[1]


def test_validate_finds_what_would_fail_later(tmp_path):
    ok("init", cwd=tmp_path)
    folder = tmp_path / "routers" / "auto"
    folder.mkdir(parents=True)
    (folder / "router.json").write_text("{")
    done = run("validate", cwd=tmp_path)
    assert (done.returncode, "error: composition 'auto'" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        ("{type: category, outcomes: outcomes.parquet, shrinkag: 5}", "did you mean 'shrinkage'"),
        ("{type: category, outcomes: outcomes.parquet, shrinkage: abc}", "shrinkage: "),
        ("{type: category}", "needs 'outcomes: <file>'"),
        ("{type: best, outcomes: nope.parquet}", "nope.parquet do not exist"),
        ('{type: "broken:Router", outcomes: outcomes.parquet}', "cannot be imported: SyntaxError"),
    ],
)
def test_validate_finds_a_wrong_inline_router(tmp_path, router, message):
    ok("init", cwd=tmp_path)
    ok("collect", "--local", "--json", cwd=tmp_path)
    (tmp_path / "broken.py").write_text("def x(:")
    path = tmp_path / "experts.yaml"
    path.write_text(path.read_text().replace("router: routers/auto", f"router: {router}"))
    done = run("validate", cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr


def test_a_router_whose_types_are_its_own_is_accepted(tmp_path):
    ok("init", cwd=tmp_path)
    ok("collect", "--local", "--json", cwd=tmp_path)
    (tmp_path / "own_router.py").write_text(OWN_ROUTER)
    out = ok("train", "--router", "own_router:Own", "--set", "where=a.txt", cwd=tmp_path)
    assert "saved routers/own" in out


def test_collect_says_why_an_expert_failed_and_ends_with_an_error(tmp_path):
    ok("init", cwd=tmp_path)
    ok("experts", "add", "dead", "--backend", "echo", "--model", "echo", "--option",
       "fail=unavailable", cwd=tmp_path)  # fmt: skip
    done = run("collect", "--local", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "fails on purpose" in json.loads(done.stdout)["errors"]["dead"]


def test_ask_streams_and_signs(starter):
    out = ok("ask", "-m", "parrot", "hello there", cwd=starter)
    assert out == "hello there\n"


def test_ask_reads_standard_input(starter):
    assert json.loads(ok("ask", "-m", "parrot", "--json", "-", cwd=starter, stdin="from a pipe"))[
        "text"
    ] == ("from a pipe")


def test_chat_keeps_the_conversation_and_survives_a_bad_turn(starter):
    out = ok("chat", "-m", "parrot", cwd=starter, stdin="first\nsecond\n\n")
    assert "first" in out
    assert "second" in out


def test_a_folder_of_trained_routers_does_not_hide_our_package(starter):
    assert (starter / "routers" / "auto" / "router.json").exists()
    code = "from composer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "evaluate", "--json"],
        capture_output=True, text=True, check=False, cwd=starter,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["policies"]


def test_evaluate_prints_the_baselines_with_intervals(starter):
    report = json.loads(ok("evaluate", "--json", cwd=starter))
    text = json.dumps(report)
    assert all(word in text for word in ("oracle", "random", "best single"))
    assert "best single" in ok("evaluate", cwd=starter)


def test_a_pinned_expert_is_held_against_the_router_and_its_guard(starter):
    report = json.loads(
        ok("evaluate", "--baseline", "parrot", "--refits", "0", "--json", cwd=starter)
    )
    names = [policy["name"] for policy in report["policies"]]
    assert names[:2] == ["router", "router with guard"]
    assert "pinned parrot" in names
    # 24 questions hold no evidence, so that the guarded router is the pinned expert.
    guarded = report["routers"][1]["pinned"]
    assert guarded["mcnemar"] == {"wins": 0, "losses": 0, "p": 1.0}
    assert [name for name in names if "shuffled" in name] == ["shuffled control"]


def test_a_limit_of_fractions_of_a_cent_is_told_in_full(tmp_path):
    ok("init", cwd=tmp_path)
    file = tmp_path / "experts.yaml"
    file.write_text(file.read_text() + "    limits: {usd_per_request: 0.0000012}\n")
    done = run("route", "What is 40 plus 2?", cwd=tmp_path)
    assert "oracle: expected to cost $5.21e-05, above the limit of $1.2e-06" in done.stderr


def test_experts_are_edited_without_losing_comments(tmp_path):
    ok("init", cwd=tmp_path)
    ok("experts", "add", "third", "--backend", "echo", "--model", "echo", cwd=tmp_path)
    ok("experts", "disable", "third", cwd=tmp_path)
    assert "third (disabled)" in ok("experts", "list", cwd=tmp_path)
    ok("experts", "remove", "third", cwd=tmp_path)
    assert "# Two test experts that need no download" in (tmp_path / "experts.yaml").read_text()
    assert [e["name"] for e in json.loads(ok("experts", "list", "--json", cwd=tmp_path))] == [
        "parrot",
        "oracle",
        "words",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "hi"], "experts.yaml"),
        (["ask", "-m", "parot", "hi"], "did you mean 'parrot'?"),
        (["ask", ""], "empty"),
        (["route", "-r", "nowhere.yaml", "hi"], "nowhere.yaml"),
        (["train", "--outcomes", "nowhere.parquet"], "nowhere.parquet"),
        (["train", "--router", "categry"], "did you mean 'category'?"),
        (["collect", "nowhere.jsonl", "--local"], "nowhere.jsonl"),
        (["collect", "--local", "--expert", "parot"], "did you mean 'parrot'?"),
        (["experts", "remove", "orcale"], "did you mean 'oracle'?"),
        (["evaluate", "--router", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, arguments, message):
    if arguments != ["ask", "hi"]:
        ok("init", cwd=tmp_path)
    if "train" in arguments or "evaluate" in arguments:
        ok("collect", "--local", "--json", cwd=tmp_path)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    as_json = run(*arguments, "--json", cwd=tmp_path)
    assert message in json.loads(as_json.stdout)["error"]["message"]


def test_version_and_doctor_speak_json(starter):
    assert json.loads(ok("version", "--json", cwd=starter))["expert-composer"]
    findings = json.loads(ok("doctor", "--json", cwd=starter))
    assert any("torch" in f["text"] for f in findings)


def test_the_schema_is_a_json_schema(tmp_path):
    schema = json.loads(ok("schema", cwd=tmp_path))
    assert "experts" in schema["properties"]
