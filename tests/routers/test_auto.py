from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.auto import AutoRouter, _mixing, _weighed
from routers.base import load_router
from routers.data import RoutingDataset
from routers.features import without_features
from routers.splits import split
from routers.testing import HashingEncoder, synthetic_outcomes

ENCODER = HashingEncoder(96)
PARTS = split(synthetic_outcomes(7, n=700, experts=3, categories=6))
ROWS = np.arange(len(PARTS.test))


def reached(router, test=PARTS.test):
    choice = router.predict(test.queries).utility.argmax(axis=1)
    return test.quality[np.arange(len(test)), choice].mean()


@pytest.fixture(scope="module")
def fitted():
    return AutoRouter(encoder=ENCODER).fit(PARTS.train)


def test_a_planted_signal_is_found(fitted):
    assert reached(fitted) > 0.8  # 0.9 at best, 0.5 for any single expert


def test_it_is_found_without_labels_too():
    unlabelled = PARTS.train.with_category([""] * len(PARTS.train))
    router = AutoRouter(encoder=ENCODER).fit(unlabelled)
    assert "category" not in router.lineage_["weights"]
    assert reached(router) > 0.7


def shuffled(seed):
    rows = np.random.default_rng(seed).permutation(len(PARTS.train))
    return replace(PARTS.train, quality=PARTS.train.quality[rows])


def test_what_is_shuffled_is_not_found():
    """Without a signal its scores are the means, or next to them."""
    spread, weights = [], []
    for seed in range(6):
        router = AutoRouter(encoder=ENCODER).fit(shuffled(seed))
        quality = router.predict(PARTS.test.queries).quality
        spread.append((quality - quality.mean(axis=0)).std())
        weights += [w for both in router.lineage_["weights"].values() for w in both]
    assert np.mean(weights) < 0.2  # 0.4 with what is planted
    assert np.mean(spread) < 0.03  # 0.3 is planted


def test_on_noise_it_is_no_worse_than_the_best_single_expert():
    rng = np.random.default_rng(0)
    lost = []
    for seed in range(6):
        data = synthetic_outcomes(seed, n=300, experts=4, categories=4)
        chance = np.array([0.7, 0.6, 0.5, 0.4])
        noise = replace(data, quality=(rng.random((300, 4)) < chance).astype(float))
        router = AutoRouter(encoder=ENCODER).fit(noise)
        choice = router.predict(PARTS.test.queries).utility.argmax(axis=1)
        lost.append(0.7 - chance[choice].mean())
    assert np.mean(lost) < 0.005


def test_outcomes_that_never_change_are_predicted_as_they_are():
    data = synthetic_outcomes(0, n=200, experts=2, categories=2)
    same = replace(data, quality=np.tile([0.6, 0.4], (200, 1)))
    router = AutoRouter(encoder=ENCODER).fit(same)
    assert router.predict(["whatever"]).quality[0] == pytest.approx([0.6, 0.4], abs=0.01)


def test_where_no_member_counts_the_best_on_average_is_asked():
    router = AutoRouter(encoder=ENCODER).fit(PARTS.train.select(np.arange(5)))
    assert not any(any(w) for w in router.lineage_["weights"].values())
    story = router.explain("whatever")
    assert story.reason == "best on average: nothing was found that tells queries apart"
    assert story.primary == router.experts_[int(router.state_["mean"].argmax())]


def test_held_out_predictions_are_of_queries_that_were_not_seen(fitted):
    """By heart, a fine cluster router would be right on every query that it was fitted on."""
    router = AutoRouter(
        encoder=ENCODER,
        members={"neighbour": {"type": "knn", "neighbors": 1, "shrinkage": 0.0}},
    )
    data = shuffled(3)
    router.fit(data)
    choice = router.state_["held"].argmax(axis=1)
    rows = np.arange(len(data))
    best = np.nanmean(data.quality, axis=0).max()
    assert data.quality[rows, choice].mean() < best + 0.05
    held = fitted.state_["held"]
    train = PARTS.train
    assert train.quality[np.arange(len(train)), held.argmax(axis=1)].mean() == pytest.approx(
        reached(fitted), abs=0.06
    )


def test_an_experts_removal_is_exact(fitted):
    everyone = fitted.predict(PARTS.test.queries)
    for e in range(3):
        rest = [i for i in range(3) if i != e]
        names = [fitted.experts_[i] for i in rest]
        some = fitted.predict(PARTS.test.queries, experts=names)
        for name in ("quality", "error", "cost", "utility"):
            assert np.array_equal(getattr(some, name), getattr(everyone, name)[:, rest])


def test_the_error_is_wider_with_fewer_outcomes(fitted):
    quality = PARTS.train.quality.copy()
    quality[30:, 1] = np.nan
    thin = AutoRouter(encoder=ENCODER).fit(replace(PARTS.train, quality=quality))
    error = thin.predict(PARTS.test.queries).error
    assert error[:, 1].mean() > 1.8 * error[:, 0].mean()
    few = AutoRouter(encoder=ENCODER).fit(PARTS.train.select(np.arange(40)))
    assert (
        few.predict(PARTS.test.queries).error.mean()
        > 1.2 * fitted.predict(PARTS.test.queries).error.mean()
    )


def test_two_weights_are_of_differences_and_of_the_level():
    rng = np.random.default_rng(0)
    mean, views = rng.random(3).astype(np.float32), rng.random((2, 5, 3)).astype(np.float32)
    weights = np.array([[0.3, 0.9], [0.5, 0.0]], dtype=np.float32)
    expected = mean + sum(_weighed(v - mean, w) for v, w in zip(views, weights, strict=True))
    mixing, bias = _mixing(mean, weights)
    assert np.hstack([*views]) @ mixing + bias == pytest.approx(expected, abs=1e-6)
    mixing, bias = _mixing(mean, np.array([[0.0, 1.0]]))
    level = (views[0] - mean).mean(axis=1, keepdims=True)
    assert views[0] @ mixing + bias == pytest.approx(mean + level, abs=1e-6)


def test_the_weights_of_a_known_mixture_are_recovered():
    """One member that is right and one that is not: the first gets all the weight."""
    members = {
        "good": {"type": "linear", "penalty": 1.0},
        "blind": {"type": "cluster", "clusters": 1},
    }
    router = AutoRouter(encoder=ENCODER, members=members).fit(PARTS.train)
    weights = router.lineage_["weights"]
    assert weights["good"][0] > 0.7
    assert weights["blind"][0] == 0


def test_like_keeps_the_weights_and_learns_the_rest_anew(fitted):
    part = PARTS.train.select(np.arange(200))
    again = fitted.like().fit(part)
    for name, both in again.lineage_["weights"].items():
        assert both == pytest.approx(fitted.lineage_["weights"][name], abs=1e-4)
    assert reached(again) > 0.6
    assert not np.array_equal(again.state_["mean"], fitted.state_["mean"])


def test_saving_keeps_members_their_settings_and_every_number(fitted, tmp_path):
    members = {"own": {"type": "cluster", "clusters": 6}, "line": {"type": "linear"}}
    router = AutoRouter(encoder=ENCODER, members=members).fit(PARTS.train)
    loaded = load_router(router.save(tmp_path / "router"), encoder=ENCODER)
    assert loaded.members == members
    before, after = (r.predict(PARTS.test.queries) for r in (router, loaded))
    for name in ("quality", "error", "cost", "utility"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert loaded.explain(PARTS.test.queries[0]) == router.explain(PARTS.test.queries[0])


def test_a_stack_may_hold_a_stack(tmp_path):
    members = {"inner": {"type": "auto"}, "clusters": {"type": "cluster", "clusters": 6}}
    router = AutoRouter(encoder=ENCODER, members=members).fit(PARTS.train.select(np.arange(200)))
    loaded = load_router(router.save(tmp_path / "router"), encoder=ENCODER)
    assert loaded.score(["a b c"]) == pytest.approx(router.score(["a b c"]))
    assert reached(router) > 0.6


def test_the_story_names_views_and_category(fitted):
    story = fitted.explain(PARTS.test.queries[0])
    counted = {name for name, both in fitted.lineage_["weights"].items() if any(both)}
    assert set(story.details["views"]) == counted
    assert story.details["category"] in fitted.categories_
    assert f"category {story.details['category']}" in story.reason


def test_embeddings_alone_are_enough(fitted):
    z = fitted.embed(PARTS.test.queries)
    alone = fitted.predict_embedded(without_features(z)).quality
    assert np.abs(alone - fitted.predict_embedded(z).quality).mean() < 0.1


@pytest.mark.parametrize("n", [1, 3, 7, 9, 12])
def test_few_queries_are_enough_to_answer(n):
    router = AutoRouter(encoder=ENCODER).fit(PARTS.train.select(np.arange(n)))
    found = router.predict(["anything"])
    assert np.isfinite(found.quality).all()
    if n < 8:
        assert found.quality[0].argmax() == router.state_["mean"].argmax()


def test_queries_that_are_all_alike_cannot_be_held_out():
    data = RoutingDataset(
        queries=("the same question",) * 20,
        experts=("a", "b"),
        quality=np.tile([0.0, 1.0], (20, 1)),
    )
    assert AutoRouter(encoder=ENCODER).fit(data).route("another").primary == "b"


def test_an_expert_that_only_one_fold_saw_is_accepted():
    quality = PARTS.train.quality.copy()
    quality[1:, 2] = np.nan
    quality[0, 2] = 1.0
    router = AutoRouter(encoder=ENCODER).fit(replace(PARTS.train, quality=quality))
    assert np.isfinite(router.predict(PARTS.test.queries).utility).all()
    assert reached(router) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": {}}, "members: there are none; leave the key out"),
        ({"members": {"a": {"clusters": 3}}}, "members: 'a' has no 'type'"),
        ({"members": {"a/b": {"type": "cluster"}}}, "members: 'a/b' has a '/'"),
        ({"members": {"a": {"type": "cluster", "cluster": 3}}}, r"'cluster' is not one of"),
        ({"rehearsals": 1}, "rehearsals: 1 is below 2"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        AutoRouter(encoder=ENCODER, **options)
