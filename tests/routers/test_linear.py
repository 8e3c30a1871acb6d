from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from experts_registry.errors import OptionError
from routers.bounding import bounded
from routers.data import RoutingDataset
from routers.features import FEATURES
from routers.linear import PENALTIES, LinearRouter, centred
from routers.testing import HashingEncoder, synthetic_outcomes

ENCODER = HashingEncoder(16)
F = len(FEATURES)
RNG = np.random.default_rng(0)


def unit(n, d=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def with_features(x):
    return np.hstack([x, np.random.default_rng(5).normal(size=(len(x), F))]).astype(np.float32)


def table(quality):
    return RoutingDataset(
        queries=tuple(f"query number {i}" for i in range(len(quality))),
        experts=tuple("abcdefgh"[: quality.shape[1]]),
        quality=quality,
    )


X = unit(800)
TRUTH = 0.5 + 0.3 * X @ RNG.normal(size=(16, 3))
Y = (RNG.random(TRUTH.shape) < TRUTH).astype(float)


def test_it_predicts_scikit_learns_ridge(monkeypatch):
    monkeypatch.setattr("routers.linear._PSEUDO_ANSWERS", 0.0)  # which scikit-learn does not do
    router = LinearRouter(encoder=ENCODER, penalty=3.0, features=False)
    router.fit_embedded(with_features(X), table(Y))
    expected = Ridge(alpha=3.0).fit(X, Y).predict(X)
    assert router.predict_embedded(X).quality == pytest.approx(bounded(expected), abs=1e-4)


def test_it_predicts_scikit_learns_logistic_regression():
    router = LinearRouter(encoder=ENCODER, link="logistic", penalty=10.0, features=False)
    router.fit_embedded(with_features(X), table(Y))
    known = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(X, Y[:, 0])
    assert router.predict_embedded(X).quality[:, 0] == pytest.approx(
        known.predict_proba(X)[:, 1], abs=0.01
    )


@pytest.mark.parametrize("link", ["ridge", "logistic"])
def test_a_planted_difference_is_found_and_a_shuffled_one_is_not(link):
    fresh = unit(2000, seed=9)
    slope = np.array([3.0, -3.0, 0.0])
    truth = np.clip(0.5 + X[:, :1] * slope, 0, 1)
    quality = (RNG.random(truth.shape) < truth).astype(float)
    reached = np.clip(0.5 + fresh[:, :1] * slope, 0, 1)
    rows = np.arange(len(fresh))
    gains = []
    for outcome in (quality, quality[RNG.permutation(len(quality))]):
        router = LinearRouter(encoder=ENCODER, link=link)
        router.fit_embedded(with_features(X), table(outcome))
        choice = router.predict_embedded(fresh).utility.argmax(axis=1)
        gains.append(reached[rows, choice].mean() - reached.mean(axis=0).max())
    oracle = reached.max(axis=1).mean() - reached.mean(axis=0).max()
    assert gains[0] > 0.8 * oracle
    assert abs(gains[1]) < 0.2 * oracle


def test_noise_gets_the_largest_penalty_and_a_strong_signal_a_small_one():
    noise = (RNG.random((400, 3)) < 0.5).astype(float)
    signal = np.clip(0.5 + X[:400] @ RNG.normal(size=(16, 3)), 0, 1)
    chosen = []
    for quality in (noise, signal):
        router = LinearRouter(encoder=ENCODER)
        router.fit_embedded(with_features(X[:400]), table(quality))
        chosen.append(router.lineage_["penalty"])
    assert chosen[0] == PENALTIES[-1]
    assert chosen[1] < 100


def test_what_all_experts_share_does_not_choose_the_penalty():
    hard = X[:, :1] * 0.9  # every expert fails on the same queries
    router = LinearRouter(encoder=ENCODER)
    noise = RNG.normal(size=(800, 3)) * 0.05
    router.fit_embedded(with_features(X), table(np.clip(0.5 + hard + noise, 0, 1)))
    assert router.lineage_["penalty"] == PENALTIES[-1]


def test_the_error_is_wider_where_less_was_seen():
    router = LinearRouter(encoder=ENCODER, penalty=3.0, features=False)
    quality = Y.copy()
    quality[40:, 2] = np.nan
    router.fit_embedded(with_features(X), table(quality))
    error = router.predict_embedded(X).error
    assert error[:, 2].mean() > 1.2 * error[:, 0].mean()
    few = LinearRouter(encoder=ENCODER, penalty=3.0, features=False)
    few.fit_embedded(with_features(X[:40]), table(Y[:40]))
    assert few.predict_embedded(X).error.mean() > 1.5 * error[:, 0].mean()


def test_the_error_covers_the_truth():
    router = LinearRouter(encoder=ENCODER, penalty=1.0, features=False)
    router.fit_embedded(with_features(X), table(Y))
    found = router.predict_embedded(X)
    inside = np.abs(found.quality - TRUTH) < 2 * found.error
    assert inside.mean() > 0.85


def test_centring_takes_the_known_mean_of_each_row_away():
    known = np.array([[True, True, False], [False, False, False]])
    found = centred(np.array([[1.0, 3.0, 9.0], [1.0, 2.0, 3.0]]), known)
    assert found.tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"link": "logit"}, r"link: 'logit' is not one of ridge, logistic"),
        ({"penalty": 0.0}, r"penalty: 0.0 is not a number above 0"),
        ({"penalty": float("nan")}, r"penalty: nan is not a number above 0"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        LinearRouter(encoder=ENCODER, **options)


def test_one_lucky_answer_does_not_make_a_favourite():
    data = synthetic_outcomes(n=200)
    quality = np.array(data.quality)
    quality[1:, 2] = np.nan
    quality[0, 2] = 1.0
    found = LinearRouter(encoder=HashingEncoder()).fit(replace(data, quality=quality))
    utility = found.predict(data.queries).utility
    assert (utility.argmax(axis=1) == 2).mean() < 0.6  # as an average expert, not everywhere
