import threading

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.decision import Candidate, Decision
from routers.exploration import DayPurse, Explorer, best_chances


def decision(*experts, cost_unit="usd"):
    """Build what a router says of (name, quality, error, cost[, excluded]), the best first."""
    rows = sorted(experts, key=lambda row: (len(row) > 4, -row[1]))
    candidates = tuple(
        Candidate(expert=n, quality=q, error=s, cost=c, utility=q, excluded=why[0] if why else None)
        for n, q, s, c, *why in rows
    )
    best = candidates[0]
    return Decision(
        (best.expert,), (best.quality,), "because", candidates, cost_unit=cost_unit,
        details={"category": "math"},
    )  # fmt: skip


CLOSE = decision(("a", 0.6, 0.1, 0.0), ("b", 0.58, 0.1, 0.0), ("c", 0.5, 0.1, 0.0))
RICH = Explorer(rate=1, usd_per_day=1e9, seed=0)


def told(explored):
    return explored.details["exploration"]


def test_the_rate_is_honoured_within_sampling_error():
    explorer, purse = Explorer(rate=0.2, seed=1), DayPurse()
    drawn = [told(explorer.choose(CLOSE, purse))["explored"] for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.2, abs=3 * np.sqrt(0.2 * 0.8 / 4000))


@pytest.mark.parametrize("method", ["thompson", "ucb"])
def test_without_doubt_exploring_is_greedy_ties_included(method):
    sure = decision(("a", 0.7, 0.0, 0.0), ("b", 0.7, 0.0, 0.0), ("c", 0.6, 0.0, 0.0))
    explorer = Explorer(method=method, rate=1, seed=0)
    choices = [explorer.choose(sure, DayPurse()) for _ in range(200)]
    assert {(c.primary, told(c)["propensity"], c.reason) for c in choices} == {("a", 1, "because")}


def test_only_available_experts_are_explored():
    some = decision(("a", 0.6, 0.3, 0.0), ("b", 0.5, 0.3, 0.0), ("c", 0.9, 0.3, 0.0, "too dear"))
    assert {RICH.choose(some, DayPurse()).primary for _ in range(200)} == {"a", "b"}


@pytest.mark.parametrize(
    "only",
    [
        decision(("a", 0.6, 0.3, 0.0)),
        decision(("a", 0.6, 0.3, 0.0), ("b", 0.5, 0.3, 0.0, "is off")),
        Decision(("a",), (), "asked by name"),
    ],
)
def test_without_a_choice_the_decision_comes_back_as_it_is(only):
    assert RICH.choose(only, DayPurse()) is only


@pytest.mark.parametrize("seed", range(4))
def test_thompson_probabilities_are_those_of_sampling(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 31))
    mean, error = rng.uniform(0.4, 0.8, m), rng.choice([0.001, 0.02, 0.1, 0.5], m)
    draws = mean + error * rng.standard_normal((100_000, m))
    sampled = np.bincount(draws.argmax(axis=1), minlength=m) / len(draws)
    np.testing.assert_allclose(best_chances(mean, error), sampled, atol=0.006)


@pytest.mark.parametrize("method", ["thompson", "ucb"])
def test_the_propensity_is_the_share_of_the_choices(method):
    explorer = Explorer(method=method, rate=0.5, seed=3)
    choices = [explorer.choose(CLOSE, DayPurse()) for _ in range(6000)]
    for name in {c.primary for c in choices}:
        mine = [told(c)["propensity"] for c in choices if c.primary == name]
        assert mine[0] == pytest.approx(len(mine) / 6000, abs=0.02)
        assert len(set(mine)) == 1


def test_weighing_by_the_propensity_is_unbiased():
    reward = {"a": 0.3, "b": 0.9, "c": 0.6}
    explorer = Explorer(rate=0.5, seed=5)
    choices = [explorer.choose(CLOSE, DayPurse()) for _ in range(8000)]
    for name, truth in reward.items():
        estimate = np.mean(
            [reward[c.primary] * (c.primary == name) / told(c)["propensity"] for c in choices]
        )
        assert estimate == pytest.approx(truth, abs=0.06)


def test_ucb_asks_the_expert_that_may_be_best():
    some = decision(("a", 0.7, 0.01, 0.0), ("b", 0.5, 0.2, 0.0), ("c", 0.6, 0.05, 0.0))
    assert Explorer(method="ucb", rate=1).choose(some, DayPurse()).primary == "b"


def test_an_explored_decision_says_so_and_asks_the_greedy_expert_next():
    explored = next(d for _ in range(99) if (d := RICH.choose(CLOSE, DayPurse())).primary == "b")
    assert (explored.experts, explored.scores, explored.otherwise) == (("b",), (0.58,), "a")
    assert explored.reason.startswith("exploring by Thompson sampling: b (0.58 ± 0.10) instead of")
    assert explored.details["category"] == "math"
    assert told(explored)["greedy"] == "a"


def test_as_many_experts_are_asked_as_before():
    two = decision(("a", 0.6, 0.1, 0.0), ("b", 0.55, 0.1, 0.0), ("c", 0.5, 0.1, 0.0))
    two = Decision(("a", "b"), (0.6, 0.55), "", two.candidates, cost_unit="usd")
    chosen = {RICH.choose(two, DayPurse()).experts for _ in range(200)}
    assert chosen == {("a", "b"), ("b", "a"), ("c", "a")}


DEAR = decision(("a", 0.6, 0.2, 0.01), ("b", 0.6, 0.2, 0.04))


def test_the_cap_is_never_exceeded_by_threads_that_share_a_purse():
    purse, extra = DayPurse(), []

    def work(seed):
        explorer = Explorer(rate=1, usd_per_day=0.5, seed=seed)
        extra.extend(told(explorer.choose(DEAR, purse))["extra_usd"] for _ in range(50))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert purse.spent() == pytest.approx(sum(extra))
    assert 0.47 < purse.spent() <= 0.5


def test_with_an_empty_purse_the_greedy_expert_has_all_the_probability():
    explorer, purse = Explorer(rate=1, usd_per_day=0.02, seed=0), DayPurse()
    choices = [explorer.choose(DEAR, purse) for _ in range(50)]
    assert {(c.primary, told(c)["propensity"]) for c in choices} == {("a", 1.0)}


def test_a_cheaper_expert_costs_the_purse_nothing():
    some = decision(("a", 0.6, 0.2, 0.04), ("b", 0.6, 0.2, 0.01))
    purse = DayPurse()
    explorer = Explorer(rate=1, usd_per_day=0, seed=0)
    assert "b" in {explorer.choose(some, purse).primary for _ in range(50)}
    assert purse.spent() == 0


def test_an_expert_of_unknown_price_is_not_explored_unless_its_price_is_given():
    some = decision(("a", 0.6, 0.2, 1.0), ("b", 0.6, 0.2, 2.0), cost_unit="B params")
    assert {RICH.choose(some, DayPurse()).primary for _ in range(50)} == {"a"}
    usd = {"a": 0.0, "b": 0.01}
    purse = DayPurse()
    assert {RICH.choose(some, purse, usd=usd).primary for _ in range(50)} == {"a", "b"}
    assert purse.spent() > 0


@pytest.mark.parametrize(
    "wrong", [{"method": "greedy"}, {"rate": 1.5}, {"rate": -0.1}, {"usd_per_day": -1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Explorer(**wrong)


def bandit(explore, skill, seed, steps=400):
    """Return the regret of a learner that began with two grades of each expert."""
    rng = np.random.default_rng(seed)
    count = np.full(len(skill), 2.0)
    total = rng.binomial(2, skill).astype(float)
    regret = 0.0
    for _ in range(steps):
        mean = (total + 1) / (count + 2)
        error = np.sqrt(mean * (1 - mean) / (count + 2))
        e = explore(mean, error, rng)
        regret += skill.max() - skill[e]
        total[e] += rng.random() < skill[e]
        count[e] += 1
    return regret


def test_regret_is_below_that_of_uniform_exploration_at_the_same_rate():
    skill = np.array([0.3, 0.4, 0.5, 0.6, 0.8])

    def uniform(mean, error, rng):
        return int(rng.integers(len(mean)) if rng.random() < 0.3 else mean.argmax())

    def thompson(mean, error, rng):
        rows = [(str(i), m, s, 0.0) for i, (m, s) in enumerate(zip(mean, error, strict=True))]
        return int(explorer.choose(decision(*rows), DayPurse()).primary)

    explorer = Explorer(rate=0.3, seed=0)
    better = [bandit(uniform, skill, s) - bandit(thompson, skill, s) for s in range(12)]
    assert np.mean(better) > 3 * np.std(better) / np.sqrt(len(better))
