from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.features import without_features
from routers.knn import KNNRouter, among_nearest, centred
from routers.splits import split
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder(128)
NAN = float("nan")


def chosen_quality(router, test):
    choice = router.predict(test.queries).utility.argmax(axis=1)
    return test.quality[np.arange(len(test)), choice].mean()


@pytest.fixture(scope="module")
def parts():
    return split(synthetic_outcomes(7, n=600, experts=3, categories=6))


def test_without_shrinkage_it_is_the_regressor_of_scikit_learn(parts):
    from sklearn.neighbors import KNeighborsRegressor

    router = KNNRouter(encoder=ENCODER, neighbors=25, shrinkage=0).fit(parts.train)
    x, queries = without_features(router.embed(parts.train.queries)), parts.test.queries
    found = KNeighborsRegressor(25, metric="cosine", algorithm="brute").fit(x, parts.train.quality)
    wanted = found.predict(without_features(router.embed(queries)))
    # Ties at the edge count in part here, and by chance there.
    assert np.mean(np.abs(router.predict(queries).quality - wanted) < 1e-4) > 0.7
    assert router.predict(queries).quality == pytest.approx(wanted, abs=0.08)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_scores_are_the_shrunken_weighted_means_of_the_formula(parts, temperature):
    router = KNNRouter(encoder=ENCODER, neighbors=1000, temperature=temperature).fit(parts.train)
    x, train = (without_features(router.embed(part.queries)) for part in (parts.test, parts.train))
    similarity = x @ train.T
    weight = np.ones_like(similarity)
    if temperature:
        weight = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    k0, mean = 30, router.state_["mean"]
    wanted = (weight @ parts.train.quality + k0 * mean) / (weight.sum(axis=1)[:, None] + k0)
    assert router.predict_embedded(x).quality == pytest.approx(wanted, abs=1e-4)


def test_a_planted_signal_is_recovered_and_a_shuffled_one_is_not(parts):
    router = KNNRouter(encoder=ENCODER, neighbors=40, shrinkage=10)
    assert chosen_quality(replace(router).fit(parts.train), parts.test) > 0.75  # 0.9 at best
    rows = np.random.default_rng(0).permutation(len(parts.train))
    shuffled = replace(parts.train, quality=parts.train.quality[rows])
    assert chosen_quality(router.fit(shuffled), parts.test) < 0.6  # 0.5 for any single expert


def test_an_expert_that_only_saw_easy_neighbours_is_not_taken_for_a_better_one():
    data = synthetic_outcomes(1, n=200, experts=8)
    quality = np.repeat([[0.9] * 8, [0.1] * 7 + [NAN]], 100, axis=0)
    router = KNNRouter(encoder=ENCODER, neighbors=200, shrinkage=0)
    found = router.fit(replace(data, quality=quality)).predict(data.queries[:5]).quality
    assert found[:, 0] == pytest.approx(0.5, abs=1e-4)
    assert found[:, 7] == pytest.approx(0.5, abs=0.1)  # 0.9 without regard to whom it was asked


def test_errors_are_wider_where_fewer_neighbours_were_graded(parts):
    quality = parts.train.quality.copy()
    quality[np.arange(len(quality)) % 8 > 0, 0] = NAN
    router = KNNRouter(encoder=ENCODER).fit(replace(parts.train, quality=quality))
    error = router.predict(parts.test.queries).error
    assert error[:, 0].mean() > 1.2 * error[:, 1:].mean()


def test_errors_cover_the_truth(parts):
    router = KNNRouter(encoder=ENCODER, neighbors=40).fit(parts.train)
    found = router.predict(parts.test.queries)
    own = np.array([int(name[-1]) for name in parts.test.category])
    truth = np.where(own[:, None] % 3 == np.arange(3), 0.9, 0.3)
    inside = np.abs(found.quality - truth) < 1.96 * found.error
    assert inside.mean() > 0.75  # some neighbours are of other categories
    assert found.error.max() < 0.3


def test_a_lone_nearest_neighbour_counts_whole_and_its_ties_in_part():
    similarity = np.array([[0.9, 0.5, 0.4999, 0.1]])
    assert among_nearest(similarity, 1) == pytest.approx(np.array([[1, 0, 0, 0]]))
    assert among_nearest(similarity, 2) == pytest.approx(np.array([[1, 1, 0.9, 0]]))
    assert among_nearest(similarity, 9) == pytest.approx(np.ones((1, 4)))


def test_centring_adds_up_and_separates_experts_from_queries():
    rng = np.random.default_rng(0)
    expert, query = np.array([0.2, 0.5, 0.6]), rng.normal(0, 0.2, 3000)
    quality = expert + query[:, None] + rng.normal(0, 0.01, (3000, 3))
    hard = query < 0
    quality[hard, 0] = NAN  # seen on easy queries only
    parts = centred(quality)
    whole = parts.mean + parts.easy[:, None] + parts.residual
    assert whole[~np.isnan(quality)] == pytest.approx(quality[~np.isnan(quality)])
    assert parts.mean[1] - parts.mean[2] == pytest.approx(-0.1, abs=0.01)
    naive = quality[~hard, 0].mean() - quality[:, 1].mean()
    assert abs(parts.mean[0] - parts.mean[1] + 0.3) < 0.5 * abs(naive + 0.3)
    assert (parts.residual[np.isnan(quality)] == 0).all()


def test_it_keeps_the_contract_with_a_temperature(tmp_path):
    router = KNNRouter(encoder=ENCODER, neighbors=7, temperature=0.1, shrinkage=0.0)
    check_router(router, synthetic_outcomes(n=100), tmp_path)


@pytest.mark.parametrize(
    "option", [{"neighbors": 0}, {"temperature": 0.0}, {"shrinkage": -1.0}], ids=str
)
def test_senseless_hyperparameters_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        KNNRouter(encoder=ENCODER, **option)
