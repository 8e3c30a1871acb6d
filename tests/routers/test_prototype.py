from dataclasses import replace

import numpy as np
import pytest
import torch

from experts_registry.errors import OptionError
from routers.contrastive import contrastive_loss, train_prototypes
from routers.features import without_features
from routers.prototype import PrototypeRouter
from routers.splits import split
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder(128)


def chosen_quality(router, test):
    choice = router.predict(test.queries).utility.argmax(axis=1)
    return test.quality[np.arange(len(test)), choice].mean()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def parts():
    return split(synthetic_outcomes(7, n=600, experts=3, categories=3))


@pytest.fixture(scope="module")
def fitted(parts):
    return PrototypeRouter(encoder=ENCODER).fit(parts.train)


def test_the_contrastive_loss_is_the_cross_entropy_of_the_paper():
    prototypes = torch.eye(3, dtype=torch.float64)[:2]
    x = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]], dtype=torch.float64)
    # Rows [1, 0] and [0, 0.6] divided by T = 0.07, targets on the diagonal.
    wanted = np.mean([np.log1p(np.exp(-1 / 0.07)), np.log1p(np.exp(-0.6 / 0.07))])
    assert float(contrastive_loss(prototypes, x, x @ prototypes.T)) == pytest.approx(wanted)


def test_fewer_than_two_used_prototypes_give_no_gradient():
    x = torch.tensor(unit(np.array([[1.0, 0.1, 0], [1, 0.2, 0]])))
    for rows, used in (([[1.0, 0, 0], [-1, 0, 0]], False), ([[1.0, 0, 0], [0.97, 0.24, 0]], True)):
        prototypes = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        contrastive_loss(prototypes, x, x @ prototypes.T).backward()
        assert bool((prototypes.grad != 0).any()) is used


@pytest.mark.parametrize("contrast", [0.1, 1.0])
def test_prototypes_converge_to_the_means_of_separate_clusters(contrast):
    rng = np.random.default_rng(0)
    own = np.arange(300) % 3
    z = np.eye(8)[own] + 0.3 * rng.normal(size=(300, 8))
    z = unit(z - z.mean(axis=0))
    residual = np.where(own[:, None] == np.arange(3), 0.4, -0.2)
    means = unit(np.array([z[own == e].mean(axis=0) for e in range(3)]))
    start = unit(means + 0.3 * rng.normal(size=means.shape))
    trained = train_prototypes(z, residual, start[:, None], contrast=contrast, learning_rate=0.02)[
        -1
    ][:, 0]
    assert (start * means).sum(axis=1).min() < 0.85
    assert (trained * means).sum(axis=1).min() > 0.98


@pytest.mark.parametrize("prototypes", [1, 3])
def test_a_planted_signal_is_recovered(parts, prototypes):
    router = PrototypeRouter(encoder=ENCODER, prototypes=prototypes).fit(parts.train)
    assert chosen_quality(router, parts.test) > 0.75  # 0.9 at best, 0.5 for any single expert


def test_a_shuffled_signal_is_not(parts):
    rows = np.random.default_rng(0).permutation(len(parts.train))
    shuffled = replace(parts.train, quality=parts.train.quality[rows])
    router = PrototypeRouter(encoder=ENCODER).fit(shuffled)
    assert chosen_quality(router, parts.test) < 0.6
    assert np.ptp(router.predict(parts.test.queries).quality, axis=0).mean() < 0.15


def test_predicted_quality_is_calibrated(fitted, parts):
    predicted = fitted.predict(parts.test.queries).quality
    high = predicted > 0.6
    assert high.any()
    assert parts.test.quality[high].mean() == pytest.approx(predicted[high].mean(), abs=0.1)
    assert parts.test.quality[~high].mean() == pytest.approx(predicted[~high].mean(), abs=0.1)


def test_good_experts_do_not_tie_where_everybody_is_good(parts):
    quality = np.clip(parts.train.quality * 0.1 + 0.95, 0, 1)
    router = PrototypeRouter(encoder=ENCODER).fit(replace(parts.train, quality=quality))
    found = router.predict(parts.test.queries).quality
    assert found.max() <= 1
    best = np.sort(found, axis=1)
    assert (best[:, -1] > best[:, -2]).all()
    assert chosen_quality(router, parts.test) > 0.75


def test_the_rows_of_an_expert_decide_its_score_alone(fitted, parts):
    x = fitted.embed(parts.test.queries)
    state = {
        name: rows[:2] if name in ("prototypes", "offset", "mean", "slope") else rows
        for name, rows in fitted.state_.items()
    }
    fewer = fitted._score(without_features(x), state)
    assert np.array_equal(fewer, fitted.predict_embedded(x).quality[:, :2])


def test_experts_that_do_alike_get_the_same_scores(parts):
    twin = parts.train.quality[:, [0, 1, 2, 0]]
    names = (*parts.train.experts, "twin")
    data = replace(parts.train, experts=names, quality=twin, cost=np.ones(twin.shape))
    found = PrototypeRouter(encoder=ENCODER).fit(data).predict(parts.test.queries).quality
    assert found[:, 0] == pytest.approx(found[:, 3], abs=1e-5)


def test_errors_cover_the_truth(fitted, parts):
    found = fitted.predict(parts.test.queries)
    own = np.array([int(name[-1]) for name in parts.test.category])
    truth = np.where(own[:, None] == np.arange(3), 0.9, 0.3)
    assert (np.abs(found.quality - truth) < 1.96 * found.error).mean() > 0.85
    assert found.error.max() < 0.3


def test_it_keeps_the_contract_with_several_prototypes(tmp_path):
    check_router(
        PrototypeRouter(encoder=ENCODER, prototypes=2), synthetic_outcomes(n=100), tmp_path
    )


@pytest.mark.parametrize(
    "option", [{"prototypes": 0}, {"contrast": -1.0}, {"learning_rate": float("nan")}], ids=str
)
def test_senseless_hyperparameters_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        PrototypeRouter(encoder=ENCODER, **option)


def test_where_all_queries_are_alike_every_expert_keeps_its_mean():
    data = synthetic_outcomes(n=40)
    same = replace(data, queries=("What is it?",) * 40)
    router = PrototypeRouter(encoder=HashingEncoder()).fit(same)
    np.testing.assert_allclose(router.score(["And this?"])[0], data.quality.mean(axis=0), atol=0.01)
