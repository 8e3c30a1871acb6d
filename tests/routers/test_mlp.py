import subprocess
import sys

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.data import RoutingDataset
from routers.features import FEATURES
from routers.mlp import MLPRouter
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

ENCODER = HashingEncoder()
DIMENSIONS, EXPERTS = 16, 3


def planted(seed, n=1000):
    """Return embeddings, chances that no linear model can tell apart, and outcomes of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIMENSIONS))
    x[:, :2] = rng.choice([-2.0, 2.0], size=(n, 2))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    alike = x[:, 0] * x[:, 1] > 0  # an exclusive or
    truth = np.where(alike[:, None], [0.9, 0.2, 0.5], [0.2, 0.9, 0.5])
    return x, truth, (rng.random(truth.shape) < truth).astype(float)


def table(quality):
    return RoutingDataset(
        queries=tuple(f"query {i}" for i in range(len(quality))),
        experts=tuple(f"expert-{i}" for i in range(quality.shape[1])),
        quality=quality,
    )


def fit(x, quality, **options):
    z = np.hstack([x, np.zeros((len(x), len(FEATURES)))])
    options = {"hidden": 32, **options}
    return MLPRouter(encoder=ENCODER, **options).fit_embedded(z, table(quality))


def test_it_learns_what_no_linear_model_can():
    x, truth, quality = planted(0)
    router = fit(x[:800], quality[:800], learning_rate=3e-3)
    chosen = router.predict_embedded(x[800:]).utility.argmax(axis=1)
    assert truth[800:][np.arange(200), chosen].mean() > 0.8  # of 0.9; constants reach 0.55


def test_shuffled_outcomes_leave_every_expert_near_its_mean():
    x, _, quality = planted(1)
    shuffled = np.random.default_rng(2).permutation(quality)
    found = fit(x, shuffled).predict_embedded(x).quality
    assert np.abs(found - quality.mean(axis=0)).mean() < 0.03


def test_reversing_the_experts_reverses_the_result_bit_for_bit():
    x, _, quality = planted(3, n=200)
    names = tuple(f"expert-{i}" for i in range(EXPERTS))
    z = np.hstack([x, np.zeros((len(x), len(FEATURES)))])
    data = table(quality)
    straight = MLPRouter(encoder=ENCODER, hidden=8).fit_embedded(z, data)
    turned = MLPRouter(encoder=ENCODER, hidden=8).fit_embedded(z, data.only(names[::-1]))
    for name in ("w3", "b3", "level", "spread"):
        assert np.array_equal(straight.state_[name][..., ::-1], turned.state_[name])


def test_training_is_repeatable_and_leaves_torchs_random_numbers_alone():
    import torch

    x, _, quality = planted(4, n=200)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = fit(x, quality, hidden=8)
    assert torch.equal(torch.rand(3), expected)
    second, other = fit(x, quality, hidden=8), fit(x, quality, hidden=8, seed=1)
    assert first.state_.keys() == second.state_.keys()
    for name, array in first.state_.items():
        assert np.array_equal(array, second.state_[name], equal_nan=True)
    assert not np.array_equal(first.state_["w1"], other.state_["w1"])


def test_numpy_predicts_what_torch_trained():
    import torch

    x, _, quality = planted(5, n=200)
    state = {name: torch.as_tensor(a) for name, a in fit(x, quality, features=False).state_.items()}
    away = 0
    for i in range(5):
        z = torch.as_tensor(x, dtype=torch.float32)
        for layer in ("1", "2"):
            z = torch.relu(z @ state["w" + layer][i] + state["b" + layer][i])
        away = away + (torch.sigmoid(z @ state["w3"][i] + state["b3"][i]) - state["level"]) / 5
    common = away.mean(dim=1, keepdim=True)
    expected = state["level"] + state["slopes"][0] * common + state["slopes"][1] * (away - common)
    found = fit(x, quality, features=False).predict_embedded(x).quality
    assert np.allclose(found, expected.clip(0, 1), atol=1e-5)


def test_an_expert_with_few_outcomes_has_a_wide_error():
    x, _, quality = planted(6, n=600)
    quality[30:, 2] = np.nan
    found = fit(x, quality).predict_embedded(x)
    assert found.error[:, 2].mean() > 1.3 * found.error[:, :2].mean()


def test_features_are_read_unless_told_not_to():
    data = synthetic_outcomes(n=200)
    wide, narrow = (
        MLPRouter(encoder=ENCODER, hidden=8, features=f).fit(data).state_["w1"].shape[1]
        for f in (True, False)
    )
    assert wide == narrow + len(FEATURES)


def test_predicting_does_not_import_torch():
    code = "import sys, routers.mlp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("options", [{"members": 2, "features": False}, {"dropout": 0.0}], ids=str)
def test_every_setting_keeps_the_contract(options, tmp_path):
    router = MLPRouter(encoder=ENCODER, hidden=8, epochs=3, **options)
    check_router(router, synthetic_outcomes(n=100), tmp_path)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"hidden": 0}, "hidden: 0 is below 1"),
        ({"members": 1}, "members: 1 is below 2"),
        ({"epochs": 0}, "epochs: 0 is below 1"),
        ({"dropout": 1.0}, r"dropout: 1\.0 is not in \[0, 1\)"),
        ({"learning_rate": 0.0}, r"learning_rate: 0\.0 is not a number above 0"),
        ({"weight_decay": -1.0}, r"weight_decay: -1\.0 is not a number of at least 0"),
        ({"seed": -1}, "seed: -1 is not a whole number"),
    ],
)
def test_wrong_settings_are_refused(option, message):
    with pytest.raises(OptionError, match=message):
        MLPRouter(encoder=ENCODER, **option)
