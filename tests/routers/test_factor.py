import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.data import RoutingDataset
from routers.factor import FactorRouter, _held_out
from routers.features import FEATURES
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder()
DIMENSIONS, EXPERTS = 32, 8


def unit_rows(rng, n, d=DIMENSIONS):
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def with_features(x):
    return np.hstack([x, np.zeros((len(x), len(FEATURES)))])


def planted(seed, n=1500, rank=2, strength=0.7):
    """Return embeddings, true chances of being right of low rank, and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(rank, EXPERTS)) * strength / rank**0.5
    directions = np.linalg.qr(rng.normal(size=(DIMENSIONS, rank)))[0]
    x = unit_rows(rng, n)
    truth = np.clip(0.5 + x @ directions @ loadings, 0.02, 0.98)
    return x, truth, (rng.random(truth.shape) < truth).astype(float)


def table(quality):
    return RoutingDataset(
        queries=tuple(f"query {i}" for i in range(len(quality))),
        experts=tuple(f"expert-{i}" for i in range(quality.shape[1])),
        quality=quality,
    )


def fit(x, quality, **options):
    return FactorRouter(encoder=ENCODER, **options).fit_embedded(with_features(x), table(quality))


def test_a_planted_model_of_low_rank_is_recovered():
    x, truth, quality = planted(0)
    router = fit(x[:1000], quality[:1000])
    found = router.predict_embedded(x[1000:])
    apart = truth[1000:] - quality[:1000].mean(axis=0)
    assert (
        np.corrcoef((found.quality - quality[:1000].mean(axis=0)).ravel(), apart.ravel())[0, 1]
        > 0.85
    )
    chosen = found.utility.argmax(axis=1)
    rows = np.arange(len(chosen))
    reached, room = truth[1000:][rows, chosen].mean(), truth[1000:].max(axis=1).mean()
    assert reached > 0.5 + 0.8 * (room - 0.5)


def test_shuffled_outcomes_teach_next_to_nothing():
    x, _, quality = planted(1)
    shuffled = np.random.default_rng(2).permutation(quality)
    signal, noise = (fit(x, q).predict_embedded(x[:300]).quality for q in (quality, shuffled))
    assert noise.std(axis=0).mean() < 0.25 * signal.std(axis=0).mean()
    assert np.allclose(noise.mean(axis=0), quality.mean(axis=0), atol=0.03)


def test_at_full_rank_the_directions_are_those_of_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    x, _, quality = planted(3, n=400)
    router = fit(x, quality, rank=EXPERTS, penalty=10.0, features=False)
    ridge = Ridge(alpha=10.0).fit(x, quality)
    # The columns of B span those of W, and V is orthonormal: B B' = W' W.
    found = router.state_["directions"] @ router.state_["directions"].T
    assert np.allclose(found, ridge.coef_.T @ ridge.coef_, atol=1e-5)


def test_an_expert_with_twenty_outcomes_borrows_from_the_others():
    gains, wider = [], []
    for seed in range(4):
        x, truth, quality = planted(10 + seed)
        # The last expert finds the same hard as all others do.
        truth[:, -1] = truth[:, :-1].mean(axis=1) + 0.1
        rng = np.random.default_rng(seed)
        quality[:, -1] = rng.random(len(x)) < truth[:, -1]
        few = quality[:1000].copy()
        few[20:, -1] = np.nan
        found = fit(x[:1000], few).predict_embedded(x[1000:])
        constant = ((few[:20, -1].mean() - truth[1000:, -1]) ** 2).mean()
        gains.append(constant - ((found.quality[:, -1] - truth[1000:, -1]) ** 2).mean())
        wider.append(found.error[:, -1].mean() / found.error[:, :-1].mean())
        # Wide, and not wildly so: most of the truths lie within two standard errors.
        inside = np.abs(found.quality[:, -1] - truth[1000:, -1]) < 2 * found.error[:, -1]
        assert inside.mean() > 0.8
    assert np.mean(gains) > 0
    assert np.mean(wider) > 1.5


def test_missing_cells_cost_little():
    x, truth, quality = planted(4)
    holes = quality[:1000].copy()
    holes[np.random.default_rng(5).random(holes.shape) < 0.5] = np.nan
    whole, half = (
        ((fit(x[:1000], q).predict_embedded(x[1000:]).quality - truth[1000:]) ** 2).mean()
        for q in (quality[:1000], holes)
    )
    constant = ((quality[:1000].mean(axis=0) - truth[1000:]) ** 2).mean()
    assert whole < half < constant - 0.5 * (constant - whole)


def test_the_standard_error_covers_the_truth():
    off = []
    for seed in range(20, 24):
        x, truth, quality = planted(seed)
        found = fit(x[:1000], quality[:1000]).predict_embedded(x[1000:])
        off.append((((found.quality - truth[1000:]) / found.error) ** 2).mean())
    assert 0.5 < np.sqrt(np.mean(off)) < 1.3


def test_the_error_is_wider_where_nothing_was_seen():
    x, _, quality = planted(7)
    x[:, -1] = 0.0
    router = fit(x, quality, features=False)
    strange = np.zeros((1, DIMENSIONS))
    strange[0, -1] = 1.0
    usual = router.predict_embedded(x).error.mean(axis=0)
    assert (router.predict_embedded(strange).error[0] / usual).mean() > 1.5


def test_cross_validation_tells_a_rank_and_a_penalty():
    x, _, quality = planted(8)
    chosen = fit(x, quality).lineage_["factor"]
    assert 1 <= chosen["rank"] <= 4
    assert fit(x, quality, rank=2, penalty=30.0).lineage_["factor"] == {"rank": 2, "penalty": 30.0}


@pytest.mark.parametrize("options", [{"rank": 2}, {"penalty": 30.0}, {"features": False}], ids=str)
def test_every_setting_keeps_the_contract(options, tmp_path):
    check_router(FactorRouter(encoder=ENCODER, **options), synthetic_outcomes(n=100), tmp_path)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"rank": 0}, "rank: 0 is below 1"), ({"penalty": 0.0}, r"penalty: 0\.0 is not a number")],
)
def test_wrong_settings_are_refused(option, message):
    with pytest.raises(OptionError, match=message):
        FactorRouter(encoder=ENCODER, **option)


@pytest.mark.parametrize("width", [30, 200])
def test_one_penalty_is_solved_to_the_same_predictions_as_several(width):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(80, width)), rng.normal(size=(80, 4))
    known, fold = np.ones(y.shape, dtype=bool), rng.integers(5, size=80)
    several = _held_out(z, y, known, fold, [3.0, 30.0])
    assert _held_out(z, y, known, fold, [30.0])[0] == pytest.approx(several[1])
