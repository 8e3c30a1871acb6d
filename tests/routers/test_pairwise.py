import logging

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.base import load_router
from routers.bradley_terry import Battles, mean_wins, steepness
from routers.data import RoutingDataset
from routers.features import FEATURES
from routers.pairwise import PairwiseRouter
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder()
DIMENSIONS = 16


def planted(seed, n=1200, slopes=(2.0, -2.0)):
    """Return embeddings, chances of being right that depend on their first entry, and outcomes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIMENSIONS))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    truth = np.clip(0.5 + x[:, :1] * np.array(slopes) * 0.6, 0.05, 0.95)
    return x, truth, (rng.random(truth.shape) < truth).astype(float)


def table(quality, **columns):
    return RoutingDataset(
        queries=tuple(f"query {i}" for i in range(len(quality))),
        experts=tuple("abcdefgh"[: quality.shape[1]]),
        quality=quality,
        **columns,
    )


def fit(x, data, **options):
    z = np.hstack([x, np.zeros((len(x), len(FEATURES)))])
    return PairwiseRouter(encoder=ENCODER, **options).fit_embedded(z, data)


def win_rates(router, x):
    """Return how often a beats b (n,), from embeddings alone."""
    s = x @ router.state_["weight"][:DIMENSIONS] + router.state_["bias"]
    return 1 / (1 + np.exp(s[:, 1] - s[:, 0]))


@pytest.mark.parametrize("seed", [0, 1])
def test_two_experts_are_scikit_learns_logistic_regression(seed):
    from sklearn.linear_model import LogisticRegression

    x, _, quality = planted(seed, n=400)
    quality[::5] = np.random.default_rng(seed).random(quality[::5].shape)  # and some part marks
    alpha, battles = 3.0, Battles(x, quality)
    found = battles.fit(alpha)
    share = (1 + quality[:, 0] - quality[:, 1]) / 2
    # Its intercept has no penalty; a column that is large enough has that of ours.
    z = np.hstack([x - battles.mean, np.full((len(x), 1), alpha**0.5)])
    judge = LogisticRegression(C=1 / alpha, fit_intercept=False, tol=1e-9, max_iter=1000)
    judge.fit(
        np.vstack([z, z]),
        np.repeat([1, 0], len(z)),
        sample_weight=np.concatenate([share, 1 - share]),
    )
    assert np.allclose(found.weight @ [1, -1], judge.coef_[0, :-1], atol=1e-4)
    level = found.bias @ [1, -1] + battles.mean @ found.weight @ [1, -1]
    assert level == pytest.approx(judge.coef_[0, -1] * alpha**0.5, abs=1e-4)


def test_the_slope_of_the_loss_is_its_derivative():
    rng = np.random.default_rng(0)
    quality = rng.random((7, 4))
    quality[0, 1] = quality[3] = np.nan
    battles, s = Battles(rng.normal(size=(7, 3)), quality), rng.normal(size=(7, 4))
    slope = battles._loss(s)[1]
    for i, e in ((0, 0), (0, 1), (3, 2), (5, 3)):
        step = np.zeros_like(s)
        step[i, e] = 1e-5
        expected = (battles.loss(s + step) - battles.loss(s - step)) / 2e-5
        assert slope[i, e] == pytest.approx(expected, abs=1e-8)


def test_without_queries_to_tell_apart_strengths_are_elo_ratings():
    # a wins 3 of 4 against b: with hardly any penalty the odds are 3 : 1.
    quality = np.tile([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], (2000, 1))
    found = Battles(np.ones((8000, 2)), quality).fit(1.0)
    assert found.bias @ [1, -1] == pytest.approx(np.log(3), abs=2e-3)


def test_mean_wins_add_up_and_rise_as_told():
    s = np.random.default_rng(1).normal(size=(5, 4))
    assert np.allclose(mean_wins(s).sum(axis=1), 2)
    step = np.zeros_like(s)
    step[:, 2] = 1e-6
    rise = (mean_wins(s + step) - mean_wins(s - step))[:, 2] / 2e-6
    assert np.allclose(rise, steepness(s)[:, 2])
    assert np.allclose(mean_wins(s[:, :1]), 0.5)


def test_a_planted_difference_is_found_and_a_shuffled_one_is_not():
    x, truth, quality = planted(2, slopes=(2.0, 0.0, -2.0))
    found = fit(x[:900], table(quality[:900])).predict_embedded(x[900:])
    rows = np.arange(300)
    reached = truth[900:][rows, found.utility.argmax(axis=1)].mean()
    assert reached > 0.5 + 0.85 * (truth[900:].max(axis=1).mean() - 0.5)
    shuffled = np.random.default_rng(3).permutation(quality)
    noise = fit(x, table(shuffled)).predict_embedded(x).quality
    assert noise.std(axis=0).mean() < 0.25 * found.quality.std(axis=0).mean()


def test_differences_in_quality_and_their_errors_are_right():
    off = []
    for seed in range(40, 43):
        x, truth, quality = planted(seed, n=3000, slopes=(1.0, -1.0))
        found = fit(x[:2000], table(quality[:2000])).predict_embedded(x[2000:])
        gain, expected = found.quality @ [1, -1], truth[2000:] @ [1, -1]
        assert np.polyfit(gain, expected, 1)[0] == pytest.approx(1, abs=0.15)
        off.append(((gain - expected) ** 2 / (found.error**2).sum(axis=1)).mean())
    assert 0.4 < np.sqrt(np.mean(off)) < 1.2


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_share_of_strong_calls_is_kept_on_new_queries(share):
    x, _, quality = planted(5, n=3000)
    router = fit(x[:1500], table(quality[:1500]), strong="a", strong_share=share)
    utility = router.predict_embedded(x[1500:]).utility
    assert (utility.argmax(axis=1) == 0).mean() == pytest.approx(share, abs=0.04)
    assert router.calibrate(share) == pytest.approx(
        np.quantile(win_rates(router, x[:1500]), 1 - share), abs=0.03
    )


def test_a_threshold_decides_whatever_the_cost_and_whoever_else_is_there():
    x, _, quality = planted(6, slopes=(2.0, -2.0, 0.0))
    data = table(quality, cost=np.broadcast_to([0.3, 0.1, 0.001], quality.shape))
    router = fit(x, data, strong="a", weak="b", penalty=3.0)
    win = win_rates(router, x)
    for threshold in (0.3, 0.5, 0.7):
        asked = router.with_threshold(threshold)
        found = asked.predict_embedded(x, cost_weight=2.0).utility.argmax(axis=1)
        clear = np.abs(win - threshold) > 1e-4
        assert np.array_equal(found[clear], np.where(win >= threshold, 0, 1)[clear])
    assert router.threshold is None
    assert (router.predict_embedded(x, cost_weight=2.0).utility.argmax(axis=1) == 2).any()


def test_thresholds_at_the_ends_always_ask_the_same():
    router = PairwiseRouter(encoder=ENCODER).fit(synthetic_outcomes(n=100))
    told = router.lineage_["pairwise"]
    queries = synthetic_outcomes(seed=1, n=20).queries
    for threshold, name in ((0.0, told["strong"]), (1.0, told["weak"])):
        asked = router.with_threshold(threshold)
        assert {asked.route(query).primary for query in queries} == {name}


def test_the_decision_says_what_it_was_decided_by():
    router = PairwiseRouter(encoder=ENCODER, threshold=0.4).fit(synthetic_outcomes(n=100))
    decision = router.route("which one is it?")
    win = decision.details["win_rate"]
    assert decision.details["threshold"] == 0.4
    assert win == pytest.approx(float(router.win_rate(["which one is it?"])[0]), abs=1e-4)
    assert decision.primary == decision.details["strong" if win >= 0.4 else "weak"]
    assert f"{win:.3f}" in decision.reason


def test_strong_and_weak_are_the_best_and_the_cheapest_unless_named():
    x, _, quality = planted(7, n=200, slopes=(0.0, 0.0, 0.0))
    quality = np.clip(quality + np.array([0.0, 0.4, -0.4]), 0, 1)
    cost = np.broadcast_to([0.001, 0.3, 0.1], quality.shape)

    def pair(data, **options):
        told = fit(x, data, penalty=30.0, **options).lineage_["pairwise"]
        return told["strong"] + told["weak"]

    assert pair(table(quality)) == "bc"
    assert pair(table(quality, cost=cost)) == "ba"
    assert pair(table(quality), strong="a") == "ac"
    assert pair(table(quality), weak="b") == "ab"


def test_win_rates_that_hardly_differ_are_told(caplog):
    quality = np.tile([[1.0, 0.0], [0.0, 1.0]], (1000, 1))
    x = np.ones((2000, DIMENSIONS)) / 4
    with caplog.at_level(logging.WARNING):
        fit(x, table(quality), strong_share=0.5, features=False)
    assert "nearly constant" in caplog.text


def test_a_saved_router_keeps_its_share(tmp_path):
    router = PairwiseRouter(encoder=ENCODER, strong_share=0.3).fit(synthetic_outcomes(n=100))
    loaded = load_router(router.save(tmp_path), encoder=ENCODER)
    assert loaded.calibrate(0.3) == router.calibrate(0.3)
    assert loaded.route("a question").primary == router.route("a question").primary


@pytest.mark.parametrize(
    "options", [{"threshold": 0.6}, {"strong_share": 0.5}, {"features": False}], ids=str
)
def test_every_setting_keeps_the_contract(options, tmp_path):
    check_router(PairwiseRouter(encoder=ENCODER, **options), synthetic_outcomes(n=100), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold: 1\.5 is not in \[0, 1\]"),
        ({"strong_share": 0.0}, r"strong_share: 0\.0 is not between 0 and 1"),
        ({"threshold": 0.5, "strong_share": 0.5}, "give one of the two"),
        ({"penalty": -1.0}, r"penalty: -1\.0 is not a number above 0"),
        ({"strong": "a", "weak": "a"}, "weak: 'a' is the strong expert"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        PairwiseRouter(encoder=ENCODER, **options)


def test_an_unknown_expert_is_named_with_the_nearest_one():
    router = PairwiseRouter(encoder=ENCODER, strong="expert-9")
    with pytest.raises(OptionError, match=r"strong: 'expert-9' is not one of expert-0.*mean"):
        router.fit(synthetic_outcomes(n=50))


def test_calibrating_an_unfitted_router_is_refused():
    with pytest.raises(OptionError, match="not fitted"):
        PairwiseRouter(encoder=ENCODER).calibrate(0.5)
