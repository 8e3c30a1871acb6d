"""From a composition's `select` in the file to whom is asked."""

import logging
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from composer.checks import check_registry
from composer.routing import Routing
from composer.selecting import selecting
from experts_registry.errors import AbstainError, ArtefactError, BudgetError, OptionError
from experts_registry.registry import Registry
from experts_registry.schema import Composition
from experts_registry.types import Message, Prompt
from routers.guard import Guard
from routers.linear import LinearRouter
from routers.selection import TopP
from routers.testing import HashingEncoder, synthetic_outcomes

NAMES = ("expert-0", "expert-1", "expert-2")
DATA = synthetic_outcomes(5, n=300, experts=3, categories=3)

FILE = """\
version: 1
experts:
  - {{name: expert-0, kind: llm, backend: echo, model: echo, price: {{prompt: 0.1}}}}
  - {{name: expert-1, kind: llm, backend: echo, model: echo, price: {{prompt: 0.2}}}}
  - {{name: expert-2, kind: llm, backend: echo, model: echo, price: {{prompt: 0.3}}}}
  - {{name: late, kind: llm, backend: echo, model: echo, published: {{overall: 0.6}}}}
  - {{name: off, kind: llm, backend: echo, model: echo, enabled: false}}
  - {{name: words, kind: retriever, backend: hashing, model: hashing,
     options: {{dimensions: 64, longest: 3}}}}
compositions:
  - name: main
    experts: {experts}
    router: router
    {more}
    select:
      {select}
"""


@pytest.fixture(scope="module")
def encoder():
    return HashingEncoder(64)


@pytest.fixture(scope="module")
def router(encoder):
    fitted = LinearRouter(encoder=encoder, penalty=10.0).fit(DATA)
    return fitted.rehearse(DATA, keep=True)


@pytest.fixture(scope="module")
def folder(router, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selecting")
    router.save(folder / "router")
    return folder


def registry(folder, select="{}", more="{}", experts="[expert-0, expert-1, expert-2]"):
    path = folder / "experts.yaml"
    extra = "baseline: null" if more == "{}" else more
    path.write_text(FILE.format(select=select, more=extra, experts=experts))
    return Registry.load(path)


def prompt(text):
    return Prompt(messages=(Message(role="user", content=text),))


def decide(folder, text=DATA.queries[0], **file):
    return Routing(registry(folder, **file)).decide(prompt(text), "main")


# -- policies -------------------------------------------------------------------------------------


def test_by_default_the_best_one_is_asked_without_weights(folder, router):
    decision = decide(folder)
    assert decision.experts == router.route(DATA.queries[0]).experts
    assert decision.weights == ()


@pytest.mark.parametrize(
    ("select", "most"),
    [
        ("policy: top-1", 1),
        ("{policy: top-k, k: 2}", 2),
        ("{policy: top-p, p: 0.9, k_max: 2}", 2),
        ("{policy: top-p, p: 1.0}", 3),
        ("{policy: threshold, threshold: 0.9}", 1),
        ("{policy: threshold, threshold: 0.01, temperature: 1.0}", 3),
        ("{policy: 'null', k: 3, nulls: 2, level: 0.0}", 3),
        ("{policy: 'null', k: 3, nulls: 3, level: 1.5, otherwise: expert-2}", 1),
        ("{policy: shared, shared: [expert-2], p: 0.01}", 2),
    ],
)
def test_every_policy_can_be_set_in_the_file(folder, select, most):
    decision = decide(folder, select=select)
    assert 1 <= len(decision.experts) <= most
    if most == 3 and "threshold: 0.01" in select:
        assert len(decision.experts) == 3
    if decision.weights:
        assert len(decision.weights) == len(decision.experts)
        assert sum(decision.weights) == pytest.approx(1)
    if "expert-2" in select:
        assert "expert-2" in decision.experts
    errors = [f for f in check_registry(registry(folder, select=select)) if f.level == "error"]
    assert errors == []


def test_the_best_one_stays_first_whatever_the_policy(folder, router):
    for query in DATA.queries[:20]:
        decision = decide(folder, query, select="{policy: top-k, k: 2}")
        assert decision.experts == router.route(query, k=2).experts


def test_a_null_that_abstains_says_what_to_do(folder):
    with pytest.raises(
        AbstainError,
        match=r"no expert is expected to do well enough \(expert-\d, "
        r"the best, 0\.\d\d\); lower 'level', or name an expert under 'otherwise'",
    ):
        decide(folder, select="{policy: 'null', k: 1, level: 2.0}")


def test_a_stand_in_is_told_about(folder):
    decision = decide(folder, select="{policy: 'null', k: 1, level: 2.0, otherwise: expert-1}")
    assert decision.experts == ("expert-1",)
    assert "expert-1 stands in" in decision.reason


@pytest.mark.parametrize(
    ("select", "line", "message"),
    [
        ("policy: top-q", 16, r"select\.policy: policy 'top-q' is not one of .*did you mean 'top-"),
        (
            "{policy: top-p,\n        pp: 0.4}",
            17,
            r"select\.pp: policy 'top-p': 'pp' is not one of",
        ),
        ("{policy: top-k,\n        k: two}", 17, r"select\.k: policy 'top-k': k: .* not 'two'"),
        ("{policy: top-p,\n        p: 7}", 17, r"select\.p: p: 7"),
        ("k: 3", 16, r"select\.k: policy 'top-1': 'k' is not known; it has no settings"),
        (
            "{policy: 'null', otherwise: expert-9}",
            15,
            r"select: policy: expert 'expert-9' is not one of expert-0",
        ),
        (
            "{policy: shared, shared: [off]}",
            15,
            r"select: policy: expert 'off' is not one of expert-0, expert-1, expert-2",
        ),
    ],
)
def test_validate_names_file_line_and_key_of_a_wrong_policy(folder, select, line, message):
    file = registry(folder, select=select)
    errors = [f.text for f in check_registry(file) if f.level == "error"]
    assert len(errors) == 1
    assert re.match(rf"{re.escape(str(file.path))}:{line}: compositions\.0\.{message}", errors[0])
    with pytest.raises(Exception, match=r"policy|p: 7"):  # and asking it fails as well
        Routing(file).decide(prompt("anything"), "main")


# -- temperature and budget -----------------------------------------------------------------------


def composition(**select):
    return Composition(name="main", baseline=select.pop("baseline", None), select=select)


def test_the_temperature_is_fitted_on_held_out_outcomes_or_as_given(router):
    assert selecting(router, composition(), NAMES).temperature == 1.0
    assert selecting(router, composition(), NAMES).policy is None
    fitted = selecting(router, composition(policy="top-p"), NAMES)
    assert isinstance(fitted.policy, TopP)
    assert 0.01 < fitted.temperature < 0.5  # a planted signal is sharp
    given = selecting(router, composition(policy="top-p", temperature=3.0), NAMES)
    assert given.temperature == 3.0


def test_the_temperature_is_of_the_compositions_experts(router):
    everyone = selecting(router, composition(policy="top-p"), NAMES).temperature
    two = selecting(router, composition(policy="top-p"), NAMES[:2]).temperature
    assert everyone != two


def test_a_router_that_did_not_rehearse_has_temperature_1(encoder):
    bare = LinearRouter(encoder=encoder, penalty=10.0).fit(DATA)
    assert selecting(bare, composition(policy="top-p"), NAMES).temperature == 1.0


def test_a_budget_holds_where_costs_are_usd_and_not_elsewhere(folder, encoder, router):
    limited = {"select": "{policy: top-k, k: 3}", "more": "limits: {usd_per_request: 0.0035}"}
    assert len(decide(folder, **limited).experts) < 3  # 0.001, 0.002 and 0.003 a query
    tight = limited | {"more": "limits: {usd_per_request: 0.0008}"}
    with pytest.raises(BudgetError, match="does not pay for any expert"):
        decide(folder, **tight)
    other = LinearRouter(encoder=encoder, penalty=10.0).fit(replace(DATA, cost_unit="B params"))
    other.save(folder / "router")
    try:
        assert len(decide(folder, **limited).experts) == 3
        assert len(decide(folder, **tight).experts) == 3
    finally:
        router.save(folder / "router")


# -- guard ----------------------------------------------------------------------------------------


def guard_of(router, names=NAMES, **select):
    found = [
        t
        for t in selecting(router, composition(**select), names).transforms
        if isinstance(t, Guard)
    ]
    return found[0] if found else None


def test_only_a_baseline_is_guarded_and_only_where_it_is_wanted(router):
    assert guard_of(router) is None
    assert guard_of(router, baseline="expert-0", guard=False) is None
    guard = guard_of(router, baseline="expert-0")
    assert guard.baseline == "expert-0"
    assert guard.dear.least < np.inf


def test_the_guards_settings_come_from_the_file(router):
    strict = guard_of(router, baseline="expert-0", guard={"premium": 1.0})
    assert strict.dear.least == np.inf
    unsure = guard_of(router, baseline="expert-0", guard={"confidence": 0.5})
    assert unsure.dear.bound > guard_of(router, baseline="expert-0").dear.bound


def test_the_guard_learns_from_the_compositions_experts_alone(router):
    guard = guard_of(router, names=("expert-0", "expert-2"), baseline="expert-0")
    assert guard.known == {"expert-0", "expert-2"}


def test_with_the_guard_off_more_queries_leave_the_baseline(folder):
    shares = []
    for select in ("guard: false", "guard: {premium: 1.0}"):
        routing = Routing(registry(folder, select=select, more="baseline: expert-0"))
        found = [routing.decide(prompt(q), "main").primary for q in DATA.queries[:60]]
        shares.append(np.mean([name != "expert-0" for name in found]))
    assert shares[0] > 0.4
    assert shares[1] == 0


def test_a_baseline_that_the_router_does_not_know_is_always_asked(folder, caplog):
    experts = "[expert-0, expert-1, late]"
    with caplog.at_level(logging.WARNING):
        decision = decide(folder, more="baseline: late", experts=experts)
    assert decision.primary == "late"
    assert "guard: keeps to the baseline late, there is no evidence yet" in decision.reason
    assert "baseline late is always asked: its router was trained without outcomes" in caplog.text


def test_without_a_rehearsal_the_baseline_is_always_asked(encoder, caplog):
    bare = LinearRouter(encoder=encoder, penalty=10.0).fit(DATA)
    with caplog.at_level(logging.WARNING):
        guard = guard_of(bare, baseline="expert-1")
    assert guard.known == frozenset()
    assert "its router has not rehearsed; train it again" in caplog.text


# -- neighbours and balance -----------------------------------------------------------------------


def test_neighbours_need_the_training_queries(router, encoder):
    assert len(selecting(router, composition(neighbours=0.5), NAMES).transforms) == 1
    without = LinearRouter(encoder=encoder, penalty=10.0).fit(DATA).rehearse(DATA)
    with pytest.raises(ArtefactError, match=r"neighbours: .* train --keep-queries"):
        selecting(without, composition(neighbours=0.5), NAMES)


def test_balance_counts_decisions_and_spreads_them(folder):
    shares = []
    for select in ("{}", "{balance: 5.0}"):
        routing = Routing(registry(folder, select=select))
        found = Counter(routing.decide(prompt(DATA.queries[1]), "main").primary for _ in range(60))
        shares.append(found.most_common(1)[0][1] / 60)
        usage = routing._selects["main"].usage
        assert usage.counts(NAMES).sum() == pytest.approx(60, rel=0.05)
    assert shares[0] == 1
    assert shares[1] < 0.5


def test_balance_counts_shares_where_several_are_asked(folder):
    routing = Routing(registry(folder, select="{policy: top-k, k: 2, balance: 0.01}"))
    decision = routing.decide(prompt(DATA.queries[1]), "main")
    counts = routing._selects["main"].usage.counts(decision.experts)
    assert counts == pytest.approx(decision.weights)


def test_wrong_names_in_a_policy_are_an_error_of_the_policy(router):
    with pytest.raises(OptionError, match="policy 'top-k': 'kk' is not one of k"):
        selecting(router, composition(policy="top-k", kk=2), NAMES)
