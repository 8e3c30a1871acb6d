"""Loading and baselines against numbers published with the data."""

import os
from pathlib import Path

import numpy as np
import pytest

from routers import baselines
from routers.data import RoutingDataset

SHARED = Path(
    os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2].parent / "shared/data")
)
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="there is no shared data folder"),
]


@pytest.mark.parametrize(
    ("name", "mean", "single", "best"),
    [
        ("routing_llmrouter", 0.431, 0.613, 0.805),
        ("routing_zeroeval", 0.774, 0.952, 1.0),
        ("routing_mmlupro", 0.392, 0.710, 0.938),
        ("routing_routellm", 0.737, 0.808, 0.864),
    ],
)
def test_baselines_agree_with_the_published_means(name, mean, single, best):
    data = RoutingDataset.load(SHARED / name)
    is_test = np.array(data.split) == "test"
    train, test = data.select(~is_test), data.select(is_test)
    for policy, published in (
        (baselines.random_expectation(test), mean),
        (baselines.best_single(train, test), single),
        (baselines.oracle(test), best),
    ):
        assert policy.quality.mean() == pytest.approx(published, abs=6e-4)


def test_a_hundred_thousand_cells_load():
    data = RoutingDataset.load(SHARED / "routing_mmlupro")
    assert data.quality.shape == (6702, 23)
    assert data.cost_unit == "usd"
