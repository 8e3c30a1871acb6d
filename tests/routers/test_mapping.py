from itertools import pairwise, product

import numpy as np
import pytest

from experts_registry.errors import BudgetError, OptionError
from routers.mapping import pareto, solve


def instance(seed):
    """A random program of up to 5 categories and 6 experts, with random limits."""
    rng = np.random.default_rng(seed)
    c, m = rng.integers(1, 6), rng.integers(1, 7)
    value = rng.random((c, m)).round(1 + seed % 2)  # many ties
    cost = rng.random((c, m)) * 10.0 ** rng.integers(-5, 2)
    limits = {"cost_weight": float(rng.choice([0, 0.5])) / cost.max()}
    if seed % 3:
        limits["budget"] = float(rng.uniform(cost.min(), cost.max()))
    if seed % 4 == 0:
        limits |= {"sizes": rng.random(m), "hosting": float(rng.uniform(0.2, 2))}
    if seed % 5 == 0:
        limits["max_experts"] = int(rng.integers(1, 4))
    if seed % 7 == 0:
        limits["pinned"] = (0,)
    return value, cost, rng.dirichlet(np.ones(c)), limits


def mappings(value, cost, share, *, cost_weight, budget=np.inf, sizes=None, hosting=np.inf,
             max_experts=99, pinned=()):  # fmt: skip
    """Every feasible mapping as (objective, value, cost)."""
    c, m = value.shape
    for choice in product(range(m), repeat=c):
        hosted = {*choice, *pinned}
        size = 0 if sizes is None else sum(sizes[e] for e in hosted)
        paid = share @ cost[np.arange(c), list(choice)]
        if len(hosted) <= max_experts and size <= hosting and paid <= budget:
            gained = share @ value[np.arange(c), list(choice)]
            yield gained - cost_weight * paid, gained, paid


@pytest.mark.parametrize("seed", range(200))
def test_the_program_finds_what_trying_everything_finds(seed):
    value, cost, share, limits = instance(seed)
    best = max((found[0] for found in mappings(value, cost, share, **limits)), default=None)
    if best is None:
        with pytest.raises(BudgetError):
            solve(value, cost, share, **limits)
        return
    found = solve(value, cost, share, **limits)
    assert found.value - limits["cost_weight"] * found.cost == pytest.approx(best, abs=1e-7)
    assert found.cost <= limits.get("budget", np.inf) * (1 + 1e-8)
    assert found.gap == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_the_front_is_exactly_the_mappings_that_nothing_dominates(seed):
    value, cost, share, _ = instance(seed)
    value, cost, share = value[:3], cost[:3], np.array([0.5, 0.3, 0.2])[: len(share)]
    share = share / share.sum()
    everything = [(v, p) for _, v, p in mappings(value, cost, share, cost_weight=0)]
    best = {}
    for v, p in sorted(everything, key=lambda point: point[1]):
        if not best or v > max(best.values()) + 1e-9:
            best[p] = v
    front = pareto(value, cost, share)
    assert [f.value for f in front] == pytest.approx(list(best.values()), abs=1e-6)
    assert [f.cost for f in front] == pytest.approx(list(best), rel=1e-6)


def test_a_coarse_front_keeps_both_ends():
    rng = np.random.default_rng(0)
    value, cost, share = rng.random((8, 9)), rng.random((8, 9)), np.full(8, 1 / 8)
    front = pareto(value, cost, share, resolution=1 / 10)
    assert len(front) <= 12
    assert front[0].cost == pytest.approx(share @ cost.min(axis=1))
    assert front[-1].value == pytest.approx(share @ value.max(axis=1))
    assert all(a.cost < b.cost and a.value < b.value for a, b in pairwise(front))


def test_the_order_of_experts_and_categories_makes_no_difference():
    value, cost, share, _ = instance(1)
    rows, columns = np.random.default_rng(2).permutation(len(value)), [*range(value.shape[1])][::-1]
    one = solve(value, cost, share, budget=float(np.median(cost)))
    other = solve(
        value[rows][:, columns], cost[rows][:, columns], share[rows], budget=float(np.median(cost))
    )
    assert one.value == pytest.approx(other.value)
    assert one.choice[rows].tolist() == [columns[e] for e in other.choice]


def test_an_expert_that_is_worse_everywhere_changes_nothing():
    value, cost, share, _ = instance(2)
    more = np.column_stack([value, value.min(axis=1) - 0.1])
    dear = np.column_stack([cost, cost.max(axis=1)])
    for budget in (None, float(np.median(cost))):
        one, other = (solve(v, a, share, budget=budget) for v, a in ((value, cost), (more, dear)))
        assert one.choice.tolist() == other.choice.tolist()


@pytest.mark.parametrize("budget", [None, 2.0, 3.5])
def test_ties_go_to_the_cheaper_expert_then_to_the_first(budget):
    found = solve(np.ones((2, 3)), np.array([[3, 1, 1], [2, 2, 2]]), np.ones(2) / 2, budget=budget)
    assert found.choice.tolist() == [1, 0]


def test_an_impossible_budget_names_the_smallest_that_works():
    value, cost, share = np.ones((2, 2)), np.array([[0.123456789, 1], [1, 0.2]]), np.ones(2) / 2
    with pytest.raises(
        BudgetError, match=r"budget 0.1: .* the smallest that fits is 0.161729"
    ) as e:
        solve(value, cost, share, budget=0.1)
    named = float(str(e.value).rpartition(" ")[2])
    assert solve(value, cost, share, budget=named).choice.tolist() == [0, 1]


def test_impossible_hosting_is_named():
    with pytest.raises(BudgetError, match=r"hosting 1, .* no set of experts"):
        solve(np.ones((1, 2)), np.ones((1, 2)), np.ones(1), sizes=np.full(2, 2.0), hosting=1)


def test_only_allowed_experts_serve_a_category():
    allowed = np.array([[False, True], [True, True]])
    value = np.array([[1.0, 0.0], [1.0, 0.0]])
    for budget in (None, 1.0):
        found = solve(value, np.ones((2, 2)), np.ones(2) / 2, allowed=allowed, budget=budget)
        assert found.choice.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost": np.ones((1, 2))}, r"cost: shape \(1, 2\) does not fit; give \(2, 2\)"),
        ({"cost": np.full((2, 2), np.nan)}, "cost: holds a missing or negative number"),
        ({"share": np.array([-1.0, 2.0])}, "share: holds a missing or negative number"),
        ({"pinned": (5,)}, "pinned: 5 is not a column of 2 experts"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    given = {"value": np.ones((2, 2)), "cost": np.ones((2, 2)), "share": np.ones(2) / 2} | changes
    with pytest.raises(OptionError, match=message):
        solve(**given)
