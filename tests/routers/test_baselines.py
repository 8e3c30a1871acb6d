import numpy as np
import pytest

from routers import baselines
from routers.baselines import BestOnAverage, Random, macro_mean
from routers.data import RoutingDataset
from routers.testing import synthetic_outcomes

# Expert a is better on the many easy queries, b on the few hard ones and on average over both.
QUALITY = np.array([[1, 0.8], [1, 0.8], [1, 0.8], [0, 0.9]])


def table(quality=QUALITY, **changes):
    values = {
        "queries": ("x1", "x2", "x3", "a much longer query"),
        "experts": ("a", "b"),
        "quality": quality,
        "cost": np.array([[1.0, 2.0]] * 4),
        "category": ("easy", "easy", "easy", "hard"),
    }
    return RoutingDataset(**(values | changes))


def test_every_category_counts_the_same():
    assert macro_mean(table()).tolist() == pytest.approx([0.5, 0.85])
    assert macro_mean(table(category=())).tolist() == pytest.approx([0.75, 0.825])


def test_missing_cells_are_left_out_of_means():
    holes = QUALITY.copy()
    holes[3, 0] = np.nan
    assert macro_mean(table(holes)).tolist() == pytest.approx([1, 0.85])


def test_best_on_average_asks_the_best_macro_average(encoder):
    assert BestOnAverage(encoder=encoder).fit(table()).route("anything").primary == "b"


def test_random_asks_everybody_alike_and_the_same_query_the_same_expert(encoder):
    data = synthetic_outcomes(n=600, experts=4)
    router = Random(encoder=encoder).fit(data)
    chosen = router.predict(data.queries).utility.argmax(axis=1)
    assert np.bincount(chosen).min() > 110
    assert (chosen == router.predict(data.queries).utility.argmax(axis=1)).all()


def test_another_seed_is_another_random_choice(encoder):
    data = synthetic_outcomes(n=200)
    one, two = (
        Random(encoder=encoder, seed=s).fit(data).predict(data.queries).utility.argmax(axis=1)
        for s in (0, 1)
    )
    assert 0.2 < (one == two).mean() < 0.5


def test_the_rules_reach_what_can_be_counted_by_hand():
    data = table()
    reached = {
        policy.name: (
            policy.quality.tolist(),
            None if policy.choice is None else policy.choice.tolist(),
        )
        for policy in (
            baselines.best_single(data, data),
            baselines.category_table(data, data),
            baselines.prompt_length(data, data),
            baselines.random_expectation(data),
            baselines.oracle(data),
        )
    }
    assert reached["best single"] == ([0.8, 0.8, 0.8, 0.9], [1, 1, 1, 1])
    assert reached["category table"] == ([1, 1, 1, 0.9], [0, 0, 0, 1])
    assert reached["prompt length"] == ([1, 1, 1, 0.9], [0, 0, 0, 1])
    assert reached["random"][0] == pytest.approx([0.9, 0.9, 0.9, 0.45])
    assert reached["oracle"] == ([1, 1, 1, 0.9], [0, 0, 0, 1])


def test_the_rules_are_chosen_on_train_only():
    train, test = table(), table(1 - QUALITY)
    assert baselines.best_single(train, test).choice.tolist() == [1, 1, 1, 1]
    assert baselines.category_table(train, test).choice.tolist() == [0, 0, 0, 1]


def test_a_category_that_train_lacks_gets_the_best_single():
    test = table(category=("new",) * 4)
    assert baselines.category_table(table(), test).choice.tolist() == [1, 1, 1, 1]


def test_the_cheapest_correct_oracle_pays_least_for_the_same_quality():
    data = table(np.array([[1, 1], [0, 1], [0, 0], [1, 0]]))
    policy = baselines.cheapest_correct_oracle(data)
    assert (policy.choice.tolist(), policy.cost.tolist()) == ([0, 1, 0, 0], [1, 2, 1, 1])
    assert policy.quality.tolist() == baselines.oracle(data).quality.tolist()
