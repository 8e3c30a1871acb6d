from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.cluster import ClusterRouter
from routers.clustering import kmeans
from routers.features import without_features
from routers.splits import split
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder(128)


def chosen_quality(router, test):
    choice = router.predict(test.queries).utility.argmax(axis=1)
    return test.quality[np.arange(len(test)), choice].mean()


def balls(*, n=300, d=8, clusters=3, spread=0.05):
    """Return unit rows around the first axes, and whose axis each is near."""
    rng = np.random.default_rng(0)
    own = np.arange(n) % clusters
    x = np.eye(d)[own] + spread * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), own


@pytest.fixture(scope="module")
def parts():
    return split(synthetic_outcomes(7, n=800, experts=3, categories=6))


def test_separate_balls_are_found_and_centres_are_unit_vectors():
    x, own = balls()
    centres, label = kmeans(x, 3)
    assert np.linalg.norm(centres, axis=1) == pytest.approx(1)
    assert len(set(zip(own.tolist(), label.tolist(), strict=True))) == 3
    assert (centres @ np.eye(8)[:3].T).max(axis=0) == pytest.approx(1, abs=0.01)


def test_the_same_rows_give_the_same_centres():
    x, _ = balls(spread=0.5)
    assert np.array_equal(kmeans(x, 5)[0], kmeans(x, 5)[0])


def test_there_are_no_more_clusters_than_distinct_rows():
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(kmeans(x, 8)[0]) == 3


def test_a_planted_signal_is_recovered(parts):
    router = ClusterRouter(encoder=ENCODER).fit(parts.train)
    assert router.lineage_["clusters"] > 1
    assert chosen_quality(router, parts.test) > 0.75  # 0.9 at best, 0.5 for any single expert


def test_a_shuffled_signal_leaves_one_cluster(parts):
    rows = np.random.default_rng(0).permutation(len(parts.train))
    shuffled = replace(parts.train, quality=parts.train.quality[rows])
    router = ClusterRouter(encoder=ENCODER).fit(shuffled)
    assert router.lineage_["clusters"] == 1
    assert np.ptp(router.predict(parts.test.queries).quality, axis=0).max() < 1e-6


def test_the_number_of_clusters_may_be_given(parts):
    router = ClusterRouter(encoder=ENCODER, clusters=5).fit(parts.train)
    assert router.state_["quality"].shape == (5, 3)


def test_scores_are_the_formula_of_the_paper(parts):
    router = ClusterRouter(encoder=ENCODER, clusters=8).fit(parts.train)
    x, state = without_features(router.embed(parts.test.queries)), router.state_
    for row, found in zip(x[:10], router.predict_embedded(x[:10]).quality, strict=True):
        distance = 1 - state["centres"] @ row
        near = np.argsort(distance)[:3]
        if np.sort(distance)[3] - np.sort(distance)[2] < 1e-3:
            continue  # a fourth one counts in part
        weight = np.exp(-9 * distance[near])
        assert found == pytest.approx(weight @ state["quality"][near] / weight.sum(), abs=1e-5)


def test_rank_scoring_ranks_by_reciprocal_ranks_and_predicts_the_same_quality(parts):
    options = {"encoder": ENCODER, "clusters": 8, "nearest": 1}
    plain = ClusterRouter(**options).fit(parts.train).predict(parts.test.queries)
    router = ClusterRouter(**options, scoring="rank").fit(parts.train)
    found = router.predict(parts.test.queries)
    assert np.array_equal(found.quality, plain.quality)
    alone = np.isclose(np.sort(found.utility, axis=1), [1 / 3, 1 / 2, 1]).all(axis=1)
    assert alone.mean() > 0.8  # the others lie between two clusters, or experts tie
    assert np.array_equal(found.utility.argmax(axis=1)[alone], plain.utility.argmax(axis=1)[alone])


def test_costs_are_those_of_the_clusters(parts):
    own = np.array([int(name[-1]) for name in parts.train.category])
    dear = replace(parts.train, cost=np.where(own[:, None] == 0, 1.0, 0.001) * np.ones((1, 3)))
    router = ClusterRouter(encoder=ENCODER, clusters=16).fit(dear)
    cost = router.predict(parts.test.queries).cost[:, 0]
    is_dear = np.array([name == "category-0" for name in parts.test.category])
    assert cost[is_dear].mean() > 3 * cost[~is_dear].mean()


def test_errors_cover_the_truth(parts):
    router = ClusterRouter(encoder=ENCODER).fit(parts.train)
    found = router.predict(parts.test.queries)
    own = np.array([int(name[-1]) for name in parts.test.category])
    truth = np.where(own[:, None] % 3 == np.arange(3), 0.9, 0.3)
    assert (np.abs(found.quality - truth) < 1.96 * found.error).mean() > 0.7
    assert found.error.max() < 0.35


def test_a_decision_names_its_clusters(parts):
    router = ClusterRouter(encoder=ENCODER, clusters=4).fit(parts.train)
    story = router.route(parts.test.queries[0])
    assert story.reason.startswith("highest predicted quality on clusters ")
    assert set(story.details["map"]) == set(story.details["clusters"])


@pytest.mark.parametrize("options", [{"scoring": "rank"}, {"clusters": 500, "nearest": 1}], ids=str)
def test_it_keeps_the_contract_in_every_mode(options, tmp_path):
    check_router(ClusterRouter(encoder=ENCODER, **options), synthetic_outcomes(n=100), tmp_path)


@pytest.mark.parametrize(
    "option",
    [{"clusters": 0}, {"nearest": 0}, {"beta": -1.0}, {"shrinkage": -1.0}, {"scoring": "votes"}],
    ids=str,
)
def test_senseless_hyperparameters_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        ClusterRouter(encoder=ENCODER, **option)
