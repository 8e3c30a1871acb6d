import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts_registry.errors import BudgetError, OptionError, PluginError, PromptError
from routers.building import build_policy
from routers.selection import ABSTAIN, Null, Selection, Shared, Threshold, Top1, TopK, TopP

# Eighths are exact in binary, so that adding a whole number changes no difference.
eighths = st.integers(-40, 40).map(lambda i: i / 8)
some_scores = st.lists(eighths, min_size=1, max_size=12).map(np.array)
shares = st.floats(0.01, 1)
policies = st.one_of(
    st.builds(Top1),
    st.builds(TopK, k=st.integers(1, 5)),
    st.builds(TopP, p=shares, k_min=st.integers(1, 3), k_max=st.integers(3, 5) | st.none()),
    st.builds(Threshold, threshold=shares),
    st.builds(Null, k=st.integers(1, 5), nulls=st.integers(0, 4), level=eighths),
    st.builds(Null, k=st.integers(1, 3), nulls=st.just(3), level=eighths, otherwise=st.just("e0")),
    st.builds(Shared, shared=st.just(("e0",)), p=shares, nulls=st.integers(0, 3), level=eighths),
)


def names(scores):
    return [f"e{i}" for i in range(len(scores))]


def choose(policy, scores, **settings):
    scores = np.asarray(scores, dtype=float)
    return policy(scores, experts=names(scores), **settings)


def softmax(scores):
    weight = np.exp(scores - np.max(scores))
    return weight / weight.sum()


# -- what holds of every policy -----------------------------------------------------------------


@given(policies, some_scores, st.data())
def test_only_available_experts_are_chosen_each_once_with_weights_that_sum_to_one(
    policy, scores, data
):
    shut = data.draw(st.sets(st.integers(0, len(scores) - 1), max_size=len(scores) - 1))
    scores[list(shut)] = -np.inf
    selection = choose(policy, scores)
    assert not set(selection.chosen) & shut
    assert len(set(selection.chosen)) == len(selection.chosen) == len(selection.weights)
    assert all(weight >= 0 for weight in selection.weights)
    if selection.chosen:
        assert sum(selection.weights) == pytest.approx(1)
    else:
        assert selection.fallback == ABSTAIN


@given(policies, some_scores)
def test_experts_come_best_first_and_ties_in_registry_order(policy, scores):
    chosen = list(choose(policy, scores).chosen)
    assert chosen == sorted(chosen, key=lambda i: (-scores[i], i))


@given(policies, some_scores, st.randoms())
def test_the_order_of_the_registry_only_breaks_ties(policy, scores, random):
    scores = scores + np.arange(len(scores)) / 1024  # no ties
    order = list(range(len(scores)))
    random.shuffle(order)
    one = policy(scores, experts=names(scores))
    other = policy(scores[order], experts=[names(scores)[i] for i in order])
    assert [order[i] for i in other.chosen] == list(one.chosen)
    assert other.weights == pytest.approx(one.weights)
    assert (other.nulls, other.fallback) == (one.nulls, one.fallback)


@given(policies, some_scores, st.integers(-20, 20))
def test_a_constant_added_to_scores_and_levels_changes_nothing(policy, scores, constant):
    moved = policy
    if isinstance(policy, Null | Shared):
        settings = {key: getattr(policy, key) for key in policy.__dataclass_fields__}
        moved = type(policy)(**settings | {"level": policy.level + constant})
    assert choose(moved, scores + constant) == choose(policy, scores)


@given(policies, some_scores, st.data())
def test_the_budget_is_kept_and_removes_from_the_end_only(policy, scores, data):
    size = len(scores)
    cost = np.array(data.draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))) / 8
    budget = data.draw(st.integers(int(cost.min() * 8), 24)) / 8
    selection = choose(policy, scores, cost=cost, budget=budget)
    assert cost[list(selection.chosen)].sum() <= budget
    fitting = np.where(cost <= budget, scores, -np.inf)
    unbounded = choose(policy, fitting).chosen
    if isinstance(policy, Shared):
        assert set(selection.chosen) <= set(unbounded)
        assert 0 in selection.chosen or cost[0] > budget
    else:
        assert selection.chosen == unbounded[: len(selection.chosen)]
        if len(selection.chosen) < len(unbounded):
            assert cost[list(unbounded[: len(selection.chosen) + 1])].sum() > budget


@given(policies, some_scores)
def test_a_generous_budget_changes_nothing(policy, scores):
    cost = np.full(len(scores), 0.1)
    bounded = choose(policy, scores, cost=cost, budget=0.1 * len(scores))
    assert bounded == choose(policy, scores)


@given(policies, some_scores)
def test_any_temperature_down_to_nearly_none_gives_a_choice(policy, scores):
    for temperature in (1e-300, 1e-3, 1e6):
        weights = choose(policy, scores, temperature=temperature).weights
        assert np.isfinite(weights).all()


def test_an_unknown_cost_counts_as_the_dearest():
    cost = np.array([1.0, np.nan, 2.0])
    assert choose(TopK(k=3), [3, 2, 1], cost=cost, budget=3).chosen == (0, 1)
    assert choose(TopK(k=3), [3, 2, 1], cost=cost * np.nan, budget=0).chosen == (0, 1, 2)


def test_what_is_too_dear_alone_makes_room_for_the_next():
    assert choose(Top1(), [3, 2], cost=np.array([5.0, 1.0]), budget=2).chosen == (1,)


@pytest.mark.parametrize(
    ("scores", "settings", "error", "message"),
    [
        ([-np.inf, -np.inf], {}, PromptError, "no expert may be asked"),
        (
            [1, 2],
            {"cost": np.array([0.5, 0.25]), "budget": 0.1},
            BudgetError,
            "budget: 0.1 does not pay for any expert; the cheapest, 'e1', is expected to cost 0.25",
        ),
        ([1, 2], {"budget": 0.1}, OptionError, "budget: needs the expected cost"),
        ([1, np.nan], {}, OptionError, "scores: hold NaN"),
        ([1, np.inf], {}, OptionError, "scores: hold NaN or inf"),
        ([1, 2], {"temperature": 0.0}, OptionError, "temperature: 0.0 is not a number above 0"),
        ([[1, 2]], {}, OptionError, "scores: shape"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(scores, settings, error, message):
    with pytest.raises(error, match=message):
        Top1()(np.array(scores), experts=["e0", "e1"], **settings)


# -- top-1, top-k -------------------------------------------------------------------------------


@given(some_scores)
def test_top_1_is_the_first_of_the_best(scores):
    assert choose(Top1(), scores) == Selection(chosen=(int(scores.argmax()),), weights=(1.0,))
    assert choose(Top1(), scores) == choose(TopK(k=1), scores)


@given(some_scores, st.integers(1, 12), st.floats(0.1, 10))
def test_top_k_weighs_by_the_softmax_among_the_chosen(scores, k, temperature):
    selection = choose(TopK(k=k), scores, temperature=temperature)
    assert len(selection.chosen) == min(k, len(scores))
    expected = softmax(scores[list(selection.chosen)] / temperature)
    assert selection.weights == pytest.approx(expected)


# -- top-p --------------------------------------------------------------------------------------


@given(some_scores, shares)
def test_top_p_asks_one_expert_where_its_share_is_enough(scores, p):
    if softmax(scores).max() >= p:
        assert len(choose(TopP(p=p), scores).chosen) == 1


@given(st.integers(1, 30), st.integers(1, 100))
def test_top_p_asks_that_share_of_equal_experts(m, percent):
    selection = choose(TopP(p=percent / 100), np.zeros(m))
    assert len(selection.chosen) == -(-percent * m // 100)  # rounded up, in whole numbers


@given(some_scores, shares, shares)
def test_top_p_asks_no_fewer_for_a_higher_p(scores, p, other):
    low, high = sorted((p, other))
    fewer, more = choose(TopP(p=low), scores), choose(TopP(p=high), scores)
    assert fewer.chosen == more.chosen[: len(fewer.chosen)]


@given(some_scores, shares)
def test_top_p_reaches_p_and_would_not_with_one_fewer(scores, p):
    selection = choose(TopP(p=p, renormalise=False), scores)
    assert sum(selection.weights) >= p - 1e-6
    assert sum(selection.weights[:-1]) < p
    assert selection.weights == pytest.approx(softmax(scores)[list(selection.chosen)])


def test_top_p_keeps_its_bounds():
    assert len(choose(TopP(p=0.1, k_min=3), np.zeros(5)).chosen) == 3
    assert len(choose(TopP(p=1.0, k_max=2), np.zeros(5)).chosen) == 2
    assert len(choose(TopP(p=0.1, k_min=9), np.zeros(5)).chosen) == 5


# -- threshold ----------------------------------------------------------------------------------


@given(some_scores, shares)
def test_threshold_chooses_the_shares_above_it_or_the_best(scores, threshold):
    above = set(np.flatnonzero(softmax(scores) > threshold).tolist())
    chosen = choose(Threshold(threshold=threshold), scores).chosen
    assert set(chosen) == (above or {int(scores.argmax())})


def test_with_seven_equal_experts_none_is_above_the_published_threshold():
    assert len(choose(Threshold(), np.zeros(6)).chosen) == 6
    assert choose(Threshold(), np.zeros(7)).chosen == (0,)


# -- null ---------------------------------------------------------------------------------------


@given(some_scores, st.integers(1, 5), st.integers(0, 4))
def test_nulls_at_minus_infinity_are_not_there(scores, k, nulls):
    policy = Null(k=k, nulls=nulls, level=-math.inf)
    assert choose(policy, scores) == choose(TopK(k=k), scores)


@given(some_scores, st.integers(1, 5), st.integers(0, 4), eighths, st.integers(0, 40))
def test_raising_the_nulls_never_adds_an_expert(scores, k, nulls, level, rise):
    low = choose(Null(k=k, nulls=nulls, level=level), scores)
    high = choose(Null(k=k, nulls=nulls, level=level + rise / 8), scores)
    assert len(high.chosen) <= len(low.chosen)
    assert high.nulls >= low.nulls


@given(some_scores, st.integers(1, 5), st.integers(0, 4), eighths)
def test_null_is_top_k_over_experts_and_nulls(scores, k, nulls, level):
    selection = choose(Null(k=k, nulls=nulls, level=level), scores)
    all_scores = [*scores.tolist(), *[level] * nulls]
    top = sorted(range(len(all_scores)), key=lambda i: (-all_scores[i], i))[:k]
    assert list(selection.chosen) == [i for i in top if i < len(scores)]
    assert selection.nulls == sum(i >= len(scores) for i in top)


def test_only_nulls_mean_what_was_declared():
    scores = [0.1, 0.2, -np.inf]
    assert choose(Null(nulls=2), scores) == Selection(
        chosen=(), weights=(), nulls=2, fallback=ABSTAIN
    )
    assert choose(Null(nulls=2, otherwise="e0"), scores) == Selection(
        chosen=(0,), weights=(1.0,), nulls=2, fallback="e0"
    )
    # e2 may not be asked: the best that may be.
    assert choose(Null(nulls=2, otherwise="e2"), scores).fallback == "e1"


def test_a_fallback_that_is_no_candidate_is_refused_even_when_not_needed():
    with pytest.raises(OptionError, match="expert 'e9' is not one of e0, e1"):
        choose(Null(level=-9, otherwise="e9"), [0, 1])


# -- shared -------------------------------------------------------------------------------------


@given(some_scores, shares, st.integers(0, 3), eighths)
def test_shared_weights_follow_the_published_rule(scores, p, nulls, level):
    scores = np.append(scores, 0.25)  # at least one dynamic expert beside e0
    selection = choose(Shared(shared=("e0",), p=p, nulls=nulls, level=level), scores)
    dynamic = [*range(1, len(scores)), *[-1] * nulls]
    logit = np.append(scores, level)  # -1 is a null
    ranked = sorted(dynamic, key=lambda i: (-logit[i], i < 0, i))
    share = softmax(logit[ranked])
    picked = ranked[: 1 + int((np.cumsum(share) < p - 1e-9).sum())]
    r = softmax(logit[picked])
    g = softmax(logit[[*picked, 0]])
    weight = dict.fromkeys(range(len(scores)), 0.0) | {0: g[-1]}
    for i, r_i in zip(picked, r, strict=True):
        weight[i] = r_i * g[:-1].sum()
    true = {i: w for i, w in weight.items() if i in (0, *picked) and i >= 0}
    assert set(selection.chosen) == set(true)
    expected = [true[i] / sum(true.values()) for i in selection.chosen]
    assert selection.weights == pytest.approx(expected)
    assert selection.nulls == picked.count(-1)


def test_where_only_nulls_are_picked_the_shared_experts_answer():
    policy = Shared(shared=("e0", "e1"), p=0.1, nulls=1, level=5)
    selection = choose(policy, [0.0, 0.5, 1.0])
    assert (selection.chosen, selection.nulls, selection.fallback) == ((1, 0), 1, "e1")
    assert choose(policy, [-np.inf, -np.inf, 1.0]).fallback == "e2"


def test_shared_experts_alone_need_no_others():
    selection = choose(Shared(shared=("e0", "e1")), [0.0, 1.0])
    assert (selection.chosen, selection.fallback) == ((1, 0), None)


def test_shared_experts_are_paid_first():
    policy = Shared(shared=("e2",), p=1.0)
    selection = choose(policy, [3, 2, 1], cost=np.array([1.0, 1.0, 1.0]), budget=2)
    assert selection.chosen == (0, 2)


# -- from settings ------------------------------------------------------------------------------


def test_policies_are_made_by_name_and_settings():
    assert build_policy("top-1", {}) == Top1()
    assert build_policy("top-k", {"k": 3}) == TopK(k=3)
    assert build_policy("top-p", {"p": 0.7, "k_max": None}) == TopP(p=0.7)
    assert build_policy("threshold", {"threshold": 0.2}) == Threshold(threshold=0.2)
    assert build_policy("null", {"otherwise": "big"}) == Null(otherwise="big")
    assert build_policy("shared", {"shared": ["big"]}) == Shared(shared=("big",))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("top-q", {}, PluginError, "policy 'top-q' is not one of .*; did you mean 'top-"),
        ("routers.knn:KNNRouter", {}, PluginError, "is not a subclass of routers.policies.Policy"),
        ("top-p", {"q": 1}, OptionError, "policy 'top-p': 'q' is not one of p, k_min, k_max"),
        ("top-1", {"k": 1}, OptionError, "policy 'top-1': 'k' is not known; it has no settings"),
        ("top-k", {"k": "two"}, OptionError, "policy 'top-k': k: .*not 'two'"),
        ("top-k", {"k": 0}, OptionError, "k: 0 is below 1; use 1 or more"),
        ("top-p", {"p": 0}, OptionError, "p: 0.0 is not a share"),
        ("top-p", {"k_min": 3, "k_max": 2}, OptionError, "k_max: 2 is below 3"),
        ("threshold", {"threshold": 1.5}, OptionError, "threshold: 1.5 is not a share"),
        ("null", {"nulls": -1}, OptionError, "nulls: -1 is below 0"),
        ("null", {"level": math.inf}, OptionError, "policy 'null': level: .*finite"),
        ("shared", {}, OptionError, "shared: names no expert"),
        ("shared", {"shared": "big"}, OptionError, "policy 'shared': shared: .*not 'big'"),
    ],
)
def test_wrong_settings_say_what_would_be_right(name, options, error, message):
    with pytest.raises(error, match=message):
        build_policy(name, options)


def test_a_level_is_a_score_also_in_python():
    with pytest.raises(OptionError, match="level: inf is not a score"):
        Null(level=math.inf)
