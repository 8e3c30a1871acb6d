import numpy as np
import pytest

from routers.calibration import _search, calibrate, doubts
from routers.category import CategoryRouter
from routers.classifier import Signals
from routers.data import RoutingDataset
from routers.testing import HashingEncoder

RNG = np.random.default_rng(0)
INSIDE = np.arange(400) < 300


def signals(n, *, sure):
    """Make signals of sure queries, which differ in their last bits, or of unsure ones."""
    if sure:
        return Signals(
            entropy=-1e-12 + 1e-13 * RNG.random(n),
            margin=1 - 1e-12 * RNG.random(n),
            distance=1e-8 * RNG.random(n),
        )
    return Signals(entropy=RNG.random(n), margin=RNG.random(n), distance=RNG.random(n))


def joined(*parts):
    return Signals(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in Signals.__match_args__)
    )


@pytest.mark.parametrize("outside", ["as sure", "unsure"])
def test_where_everything_is_sure_no_sure_query_is_doubted(outside):
    found = joined(signals(300, sure=True), signals(100, sure=outside == "as sure"))
    # Falling back pays outside of the known categories, so that the search wants thresholds.
    thresholds = _search(found, INSIDE, np.where(INSIDE, -0.001, 0.01), 0.2)
    sure = Signals(
        entropy=np.array([0.0, 5e-13, 1e-7, -9e-13]),
        margin=np.array([1.0, 1 - 1e-12, 1 - 1e-7, 1.0]),
        distance=np.array([0.0, -1e-8, 1e-7, 1e-8]),
    )
    assert not doubts(sure, thresholds).any()
    if outside == "unsure":
        assert doubts(found, thresholds)[~INSIDE].mean() > 0.9


def test_without_hidden_categories_sure_queries_are_not_doubted_either():
    found = signals(300, sure=True)
    thresholds = _search(found, np.ones(300, dtype=bool), np.zeros(300), 0.2)
    assert not doubts(found, thresholds).any()


def test_unsure_queries_are_doubted_as_far_as_the_bound_allows():
    found = joined(signals(300, sure=False), signals(100, sure=False))
    thresholds = _search(found, INSIDE, np.where(INSIDE, 0.0, 0.01), 0.2)
    assert 0.1 < doubts(found, thresholds)[INSIDE].mean() <= 0.2


def test_a_perfectly_sure_classifier_does_not_send_everything_to_the_general_expert():
    words = ("alpha beta gamma", "delta epsilon zeta", "eta theta iota", "kappa lambda mu")
    label = np.arange(240) % 4
    data = RoutingDataset(
        queries=tuple(f"{words[c]} {words[c]} {i // 4}" for i, c in enumerate(label)),
        experts=("a", "b", "c", "d"),
        quality=(label[:, None] == np.arange(4)).astype(float),
        category=tuple(f"category-{c}" for c in label),
    )
    router = CategoryRouter(encoder=HashingEncoder(128)).fit(data)
    assert router.categorise(router.embed(data.queries)).fallback.mean() < 0.2
    choice = router.predict(data.queries).utility.argmax(axis=1)
    assert (choice == label).mean() > 0.8


def test_a_given_temperature_without_fallback_needs_no_rehearsal():
    nothing = np.empty((0, 2))
    trust = calibrate(
        "logistic", nothing, nothing, np.empty(0, int), np.empty(0, int),
        shrinkage=1.0, max_fallback=0.0, temperature=2.5,
    )  # fmt: skip
    assert trust.temperature == 2.5
    found = signals(50, sure=False)
    assert not doubts(found, trust.thresholds).any()


def test_categories_of_one_query_each_teach_nothing_and_break_nothing():
    data = RoutingDataset(
        queries=tuple(f"question {word}" for word in "abcdefghijkl"),
        experts=("small", "big"),
        quality=np.tile([[0.0, 1.0], [1.0, 0.0]], (6, 1)),
        category=tuple("abcdefghijkl"),
    )
    router = CategoryRouter(encoder=HashingEncoder()).fit(data)
    assert not router.categorise(router.embed(data.queries)).fallback.any()
