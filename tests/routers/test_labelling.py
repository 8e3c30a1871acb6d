import numpy as np
import pytest

from experts_registry.errors import DataError, OptionError
from routers.data import RoutingDataset
from routers.labelling import next_cells

CATEGORIES = tuple(f"category-{i}" for i in range(6))
EXPERTS = tuple(f"expert-{i}" for i in range(8))


def table(grades):
    """Lay (category, expert, quality) grades out as outcomes, each category named once at least."""
    quality = np.full((len(grades) + len(CATEGORIES), len(EXPERTS)), np.nan)
    for row, (_, e, q) in enumerate(grades):
        quality[row, e] = q
    labels = [CATEGORIES[c] for c, _, _ in grades] + list(CATEGORIES)
    names = tuple(f"query {i}" for i in range(len(labels)))
    return RoutingDataset(queries=names, experts=EXPERTS, quality=quality, category=tuple(labels))


def uniform(grades, budget, seed):
    cells = [(c, e) for c in CATEGORIES for e in EXPERTS]
    turns = [cells[(len(grades) + i) % len(cells)] for i in range(budget)]
    return {cell: turns.count(cell) for cell in turns}


def thompson(grades, budget, seed):
    return next_cells(table(grades), budget, seed=seed)


def regret(policy, skill, seed, rounds=10, budget=24):
    """Return what is lost by asking, per category, the expert that looks best in the end."""
    rng = np.random.default_rng(seed)
    grades = []
    for turn in range(rounds):
        for (category, expert), n in policy(grades, budget, 100 * seed + turn).items():
            c, e = CATEGORIES.index(category), EXPERTS.index(expert)
            grades += [(c, e, float(rng.random() < skill[c, e])) for _ in range(n)]
    right, wrong = np.ones(skill.shape), np.ones(skill.shape)
    for c, e, q in grades:
        right[c, e] += q
        wrong[c, e] += 1 - q
    chosen = (right / (right + wrong)).argmax(axis=1)
    return float((skill.max(axis=1) - skill[np.arange(len(skill)), chosen]).mean())


def test_the_same_labels_lead_to_less_regret_than_spread_evenly():
    rng = np.random.default_rng(0)
    saved = []
    for seed in range(60):
        skill = rng.uniform(0.3, 0.7, (1, 8)) + rng.normal(0, 0.15, (6, 8))
        skill = skill.clip(0.02, 0.98)
        saved.append(regret(uniform, skill, seed) - regret(thompson, skill, seed))
    assert np.mean(saved) > 2 * np.std(saved) / np.sqrt(len(saved))


def test_the_whole_budget_is_given_away_and_the_draw_can_be_repeated():
    cells = next_cells(table([]), 40, seed=3)
    assert sum(cells.values()) == 40
    assert cells == next_cells(table([]), 40, seed=3)
    assert list(cells.values()) == sorted(cells.values(), reverse=True)


def test_a_settled_category_gets_fewer_labels_than_an_open_one():
    settled = [(0, e, float(e == 0)) for e in range(8) for _ in range(60)]
    shares = dict.fromkeys(CATEGORIES[:2], 0.5)
    cells = next_cells(table(settled), 60, weight=shares, prior=0.1)
    got = {c: sum(n for (name, _), n in cells.items() if name == c) for c in CATEGORIES[:2]}
    assert got[CATEGORIES[0]] < 6 < got[CATEGORIES[1]]


def test_an_expert_that_cannot_win_is_left_alone():
    grades = [(0, e, q) for e, q in ((0, 1.0), (1, 0.0)) for _ in range(50)]
    cells = next_cells(table(grades), 50, weight={CATEGORIES[0]: 1.0})
    assert (CATEGORIES[0], EXPERTS[1]) not in cells


def test_a_category_without_traffic_gets_no_labels():
    cells = next_cells(table([]), 30, weight={CATEGORIES[2]: 1.0})
    assert {category for category, _ in cells} == {CATEGORIES[2]}


def test_what_cannot_be_chosen_from_is_refused():
    with pytest.raises(OptionError, match="budget: 0"):
        next_cells(table([]), 0)
    with pytest.raises(OptionError, match="weight"):
        next_cells(table([]), 5, weight={"nowhere": 1.0})
    with pytest.raises(DataError, match="categories"):
        next_cells(RoutingDataset(queries=("a",), experts=("x",), quality=np.ones((1, 1))), 5)
