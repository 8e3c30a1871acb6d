import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.decision import Prediction
from routers.neighbours import Neighbours
from routers.transforms import Context, transform

NAMES = ("a", "b", "c")


def planted(n=400, *, per_topic=8, d=16, m=3, seed=0):
    """Queries around many topics, each with its own best expert, and scores that do not know it."""
    rng = np.random.default_rng(seed)
    topics = n // per_topic
    label = np.repeat(np.arange(topics), per_topic)
    x = rng.normal(size=(topics, d))[label] + 0.15 * rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    is_best = rng.integers(m, size=topics)[label][:, None] == np.arange(m)
    quality = (rng.random((n, m)) < np.where(is_best, 0.9, 0.3)).astype(float)
    scores = np.tile([0.52, 0.5, 0.5], (n, 1)) + 0.05 * rng.normal(size=(n, m))
    return x, quality, scores


def context(x, quality, experts=NAMES):
    empty = np.zeros(np.shape(quality))
    prediction = Prediction(
        experts=experts, quality=quality, error=empty, cost=empty, utility=quality
    )
    return Context(x=x, prediction=prediction, available=np.isfinite(quality))


def remixed(neighbours, x, scores, experts=NAMES):
    return neighbours(scores, context(x, scores, experts))


def reached(scores, quality):
    return quality[np.arange(len(quality)), scores.argmax(axis=1)].mean()


def test_a_share_of_1_changes_nothing():
    x, quality, scores = planted(40)
    same = Neighbours.fit(x, quality, experts=NAMES, own=1.0)
    assert remixed(same, x, scores) is scores


@pytest.mark.parametrize(("k", "per_topic", "d"), [(1, 8, 16), (3, 1, 64)])
def test_with_the_query_itself_among_the_references_the_answer_becomes_right(k, per_topic, d):
    x, quality, scores = planted(400, per_topic=per_topic, d=d)
    solved = quality.max(axis=1) > 0
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.0, k=k)
    after = remixed(neighbours, x, scores)
    assert reached(after[solved], quality[solved]) == 1
    assert reached(scores[solved], quality[solved]) < 0.7


def test_near_queries_that_were_solved_tell_who_is_good_and_shuffled_ones_do_not():
    x, quality, scores = planted()
    train, test = np.arange(400) % 2 == 0, np.arange(400) % 2 == 1
    base = reached(scores[test], quality[test])
    gain = {}
    for name, rows in (
        ("near", np.flatnonzero(train)),
        ("shuffled", np.random.default_rng(1).permutation(np.flatnonzero(train))),
    ):
        neighbours = Neighbours.fit(x[train], quality[rows], experts=NAMES, scores=scores[train])
        after = remixed(neighbours, x[test], scores[test])
        gain[name] = (neighbours.own, reached(after, quality[test]) - base)
    assert gain["near"][0] < 1
    assert gain["near"][1] > 0.15
    assert gain["shuffled"] == (1, 0)


def test_the_share_is_not_chosen_by_luck():
    changed = 0
    for seed in range(20):
        x, quality, scores = planted(160, seed=seed)
        shuffled = np.random.default_rng(seed).permutation(160)
        fitted = Neighbours.fit(x, quality[shuffled], experts=NAMES, scores=scores)
        changed += fitted.own < 1
    assert changed <= 3


def test_a_query_is_no_neighbour_of_its_own_when_the_share_is_chosen():
    # Quality is noise: only a query's own outcome would tell anything.
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    quality = (rng.random((300, 3)) < 0.5).astype(float)
    scores = np.tile([0.51, 0.5, 0.5], (300, 1))
    assert Neighbours.fit(x, quality, experts=NAMES, scores=scores).own == 1


def test_what_costs_more_than_it_earns_does_not_count():
    x, quality, scores = planted()
    cost = np.tile([0.0, 1.0, 1.0], (400, 1))
    settings = {"experts": NAMES, "scores": scores, "cost": cost}
    assert Neighbours.fit(x, quality, **settings, cost_weight=0.0).own < 1
    assert Neighbours.fit(x, quality, **settings, cost_weight=5.0).own == 1


def test_unsolved_queries_are_no_neighbours():
    x = np.array([[1.0, 0.0], [0.8, 0.6]])
    quality = np.array([[0.2, 0.4, 0.0], [0.0, 0.0, 1.0]])
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.0, k=1)
    assert remixed(neighbours, x[:1], np.zeros((1, 3))).argmax() == 2


def test_scores_stay_in_units_of_quality_around_the_same_mean():
    x, quality, scores = planted(80)
    after = remixed(Neighbours.fit(x, quality, experts=NAMES, own=0.5), x, scores)
    assert after.mean(axis=1) == pytest.approx(scores.mean(axis=1))
    assert np.ptp(after, axis=1).max() <= np.ptp(scores, axis=1).max() / 2 + 0.5 + 1e-6


def test_the_mix_is_as_by_hand():
    x = np.array([[1.0, 0.0], [0.8, 0.6]])
    quality = np.array([[1.0, 0.0], [0.0, 1.0]])
    neighbours = Neighbours.fit(x, quality, experts=("a", "b"), own=0.75, k=2)
    scores = np.array([[0.6, 0.4]])
    weight = 1 / (1 + np.exp(-2.0))  # cosines 1 and 0.8, kernel exp(cos / 0.1)
    after = remixed(neighbours, x[:1], scores, ("a", "b"))
    apart = 0.75 * 0.2 + 0.25 * (2 * weight - 1)
    assert after[0] == pytest.approx([0.5 + apart / 2, 0.5 - apart / 2])


def test_unavailable_experts_stay_so_and_change_nobody_else():
    x, quality, scores = planted(80)
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    told = context(x, scores)
    shut = np.where(np.arange(3) == 1, -np.inf, scores)
    before, after = neighbours(scores, told), neighbours(shut, told)
    assert np.isneginf(after[:, 1]).all()
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])


def test_leaving_an_expert_out_keeps_the_difference_of_the_others():
    x, quality, scores = planted(80)
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    every = remixed(neighbours, x, scores)
    two = remixed(neighbours, x, scores[:, [2, 0]], ("c", "a"))
    np.testing.assert_allclose(two[:, 0] - two[:, 1], every[:, 2] - every[:, 0], atol=1e-7)


def test_an_expert_that_no_neighbour_asked_keeps_its_score():
    x, quality, scores = planted(80)
    quality[:, 1] = np.nan
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    with_newcomer = np.column_stack([scores, np.full(80, 0.7)])
    after = remixed(neighbours, x, with_newcomer, (*NAMES, "new"))
    np.testing.assert_array_equal(after[:, [1, 3]], with_newcomer[:, [1, 3]])
    assert (after[:, [0, 2]] != with_newcomer[:, [0, 2]]).any()


def test_an_expert_asked_only_the_easy_neighbours_is_not_taken_for_a_better_one():
    x = np.array([[0.8, 0.6], [0.8, -0.6], [-1.0, 0.0], [-1.0, 0.0]])
    quality = np.array([[1.0, 1.0, 1.0], [0.5, np.nan, 0.5], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.0, k=2)
    after = remixed(neighbours, np.array([[1.0, 0.0]]), np.zeros((1, 3)))
    assert after[0, 0] > after[0, 1]


def test_further_columns_of_x_are_not_read():
    x, quality, scores = planted(80)
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    wide = np.hstack([x, 9 * np.ones((80, 2))])
    np.testing.assert_array_equal(remixed(neighbours, wide, scores), remixed(neighbours, x, scores))


def test_a_single_query_is_scored_as_in_a_batch():
    x, quality, scores = planted(400)
    neighbours = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    batch = remixed(neighbours, x, scores)
    single = np.vstack([remixed(neighbours, x[i : i + 1], scores[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(single, batch[:50], atol=1e-5)


@pytest.mark.parametrize("quality", [np.zeros((5, 3)), np.full((5, 3), np.nan), np.zeros((0, 3))])
def test_where_nothing_was_solved_nothing_changes(quality):
    x = np.eye(5)[: len(quality)]
    scores = np.full((len(quality), 3), 0.5)
    fitted = Neighbours.fit(x, quality, experts=NAMES, scores=scores)
    assert fitted.own == 1
    chosen = Neighbours.fit(x, quality, experts=NAMES, own=0.5)
    np.testing.assert_array_equal(remixed(chosen, np.eye(5)[:1], scores[:1]), scores[:1])


def test_the_note_names_both_experts():
    x = np.array([[1.0, 0.0]])
    neighbours = Neighbours.fit(x, np.array([[0.0, 1.0, 0.0]]), experts=NAMES, own=0.0)
    scores = np.array([[0.6, 0.5, 0.4]])
    _, notes = transform(scores, context(x, scores), [neighbours])
    assert notes == ["the 3 nearest solved queries speak for b over a"]
    _, notes = transform(after := np.array([[0.1, 5.0, 0.1]]), context(x, after), [neighbours])
    assert notes == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neighbours: their share cannot be chosen without held-out scores"),
        ({"own": 1.5}, "neighbours: 1.5 is not a share"),
        ({"own": 0.5, "k": 0}, "k: 0 is below 1"),
    ],
)
def test_wrong_settings_say_what_would_be_right(settings, message):
    with pytest.raises(OptionError, match=message):
        Neighbours.fit(np.eye(3), np.eye(3), experts=NAMES, **settings)
