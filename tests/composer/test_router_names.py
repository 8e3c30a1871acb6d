"""Routers that are asked by name, with and without a threshold."""

import json

import numpy as np
import pytest

from composer import Composer
from composer.router_names import NamedRouter
from experts_registry.errors import OptionError, UnknownNameError
from experts_registry.registry import Registry
from routers.linear import LinearRouter
from routers.pairwise import PairwiseRouter
from routers.testing import HashingEncoder, synthetic_outcomes
from tests.composer.test_cli import ok, run

DATA = synthetic_outcomes(5, n=200, experts=2, categories=2)
FILE = """\
version: 1
experts:
  - {name: expert-0, kind: llm, backend: echo, model: echo}
  - {name: expert-1, kind: llm, backend: echo, model: echo}
  - {name: other, kind: llm, backend: echo, model: echo}
  - {name: words, kind: retriever, backend: hashing, model: hashing,
     options: {dimensions: 64, longest: 3}}
compositions:
  - {name: main, experts: [expert-0, expert-1], router: routers/pairwise, baseline: expert-1,
     select: {cost_weight: 3}, explore: {rate: 1}, limits: {max_tokens: 2}}
  - {name: ranked, experts: [expert-0, expert-1], router: routers/linear}
  - {name: later, router: routers/untrained}
  - {name: again, router: elsewhere/pairwise}
  - {name: "router:own@0.5", experts: [other]}
"""


@pytest.fixture(scope="module")
def pairwise():
    return PairwiseRouter(encoder=HashingEncoder(64)).fit(DATA)


@pytest.fixture(scope="module")
def registry(pairwise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    pairwise.save(folder / "routers" / "pairwise")
    pairwise.save(folder / "elsewhere" / "pairwise")
    LinearRouter(encoder=HashingEncoder(64)).fit(DATA).save(folder / "routers" / "linear")
    (folder / "experts.yaml").write_text(FILE)
    return Registry.load(folder / "experts.yaml")


@pytest.fixture(scope="module")
def composer(registry):
    with Composer(registry) as composer:
        yield composer


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("router:pairwise", "router:pairwise"),
        ("router:pairwise@0.25", "router:pairwise@0.25"),
        ("router:pairwise@.250", "router:pairwise@0.25"),
        ("router-pairwise-0.11593", "router:pairwise@0.11593"),
        ("router-pairwise-1e-05", "router:pairwise@1e-05"),
        ("router:again@1", "router:again@1"),
    ],
)
def test_a_name_is_written_in_one_way(registry, model, name):
    assert NamedRouter.find(model, registry).model == name


@pytest.mark.parametrize(
    "model",
    ["pairwise", "router:", "router:nobody", "router:pairwise@", "router:pairwise@-1",
     "router:pairwise@x", "router-pairwise", "router:own@0.5", "expert-0", "router:" + "9" * 9999],
)  # fmt: skip
def test_other_names_are_left_to_others(registry, model):
    assert NamedRouter.find(model, registry) is None


def test_the_threshold_decides(composer, pairwise):
    told = pairwise.lineage_["pairwise"]
    queries = DATA.queries[:40]
    wins = pairwise.win_rate(queries)
    middle = float(np.median(wins))
    for model in (f"router:pairwise@{middle:.6f}", f"router-pairwise-{middle:.6f}"):
        asked = [composer.route(query, model=model).primary for query in queries]
        clear = np.abs(wins - middle) > 1e-5
        expected = np.where(wins >= middle, told["strong"], told["weak"])
        assert (np.array(asked)[clear] == expected[clear]).all()
        assert len(set(asked)) == 2
    for threshold, expert in ((0, told["strong"]), (1, told["weak"])):
        decision = composer.route(queries[0], model=f"router:pairwise@{threshold}")
        assert (decision.primary, decision.router) == (expert, "pairwise")


def test_without_a_threshold_the_router_decides_alone(composer, pairwise):
    for query in DATA.queries[:20]:
        decision = composer.route(query, model="router:pairwise")
        assert decision.primary == pairwise.route(query, cost_weight=3).primary


def test_the_composition_lends_experts_and_limits_and_the_answer_bears_the_name(composer):
    answer = composer.query("one two three", model="router-pairwise-0.5")
    assert (answer.text, answer.model) == ("one two", "router:pairwise@0.5")
    assert "probability" in answer.decision.reason  # not explored, though main always does
    stream = composer.stream("one two three", model="router:pairwise@0.5")
    assert "".join(stream) == "one two"
    assert [spec.name for spec in composer.candidates("router:pairwise@0.5")] == [
        "expert-0",
        "expert-1",
    ]


def test_a_name_of_the_file_comes_first(composer):
    assert composer.query("hello", model="router:own@0.5").expert == "other"


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("router:linear@0.5", OptionError, "has no threshold; ask 'router:linear'"),
        ("router:pairwise@1.5", OptionError, "1.5 is not in"),
        ("router:untrained", UnknownNameError, "is not trained yet"),
        ("router:pairwize@0.5", UnknownNameError, "did you mean 'router:pairwise'"),
    ],
)
def test_what_cannot_be_asked_is_refused(composer, model, error, message):
    with pytest.raises(error, match=message):
        composer.query("hello", model=model)


def test_a_router_without_a_threshold_may_be_asked_by_name(composer):
    assert composer.query("hello", model="router:linear").decision.router == "linear"


def test_the_command_line_finds_a_threshold_for_a_share(registry, pairwise):
    folder = registry.path.parent
    [found] = json.loads(ok("threshold", "pairwise", "--strong-share", 0.3, "--json", cwd=folder))
    assert found["threshold"] == pytest.approx(pairwise.calibrate(0.3), abs=1e-5)
    assert NamedRouter.find(found["model"], registry).threshold == found["threshold"]
    assert len(ok("threshold", "pairwise", cwd=folder).splitlines()) == 11
    for name, message in (("linear", "has no threshold"), ("pairwize", "did you mean 'pairwise'")):
        assert message in run("threshold", name, cwd=folder).stderr
