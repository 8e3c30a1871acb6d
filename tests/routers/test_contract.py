from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.base import Router
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

POINTS = sorted(entry_points(group="routers"), key=lambda point: point.name)
DATA = synthetic_outcomes(n=100)
ENCODER = HashingEncoder()


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_every_registered_router_keeps_the_contract(point, tmp_path):
    check_router(point.load()(encoder=ENCODER), DATA, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"classifier": "knn"},
        {"mode": "hard", "cost_weight": 0.3},
        {"budget": 0.0015},
        {"pin": {"category-0": "expert-1"}, "risk": 1.0},
    ],
    ids=str,
)
def test_the_category_router_keeps_it_in_every_mode(options, tmp_path):
    check_router(CategoryRouter(encoder=ENCODER, **options), DATA, tmp_path)


FITTED = {}


def fitted(point):
    if point.name not in FITTED:
        FITTED[point.name] = point.load()(encoder=ENCODER).fit(synthetic_outcomes(n=100, experts=5))
    return FITTED[point.name]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
@settings(max_examples=30, deadline=None)
@given(query=st.text(max_size=200), kept=st.sets(st.integers(0, 4), min_size=1))
def test_whoever_else_is_there_changes_nobodys_score(point, query, kept):
    router = fitted(point)
    names = [router.experts_[i] for i in sorted(kept)]
    everyone, some = router.predict([query]), router.predict([query], experts=names)
    assert np.array_equal(everyone.quality[:, sorted(kept)], some.quality)
    assert np.array_equal(everyone.utility[:, sorted(kept)], some.utility)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_valid_table_can_be_learned(point, data):
    n, m = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    cell = st.one_of(st.just(float("nan")), st.floats(0, 1, width=16))
    quality = np.array(
        data.draw(st.lists(st.lists(cell, min_size=m, max_size=m), min_size=n, max_size=n))
    )
    quality[0, 0] = 0.5
    label = st.sampled_from(["", "x", "y"])
    table = RoutingDataset(
        queries=tuple(
            data.draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=n, max_size=n))
        ),
        experts=tuple("abcd"[:m]),
        quality=quality,
        category=tuple(data.draw(st.lists(label, min_size=n, max_size=n))),
    )
    found = point.load()(encoder=ENCODER).fit(table).predict(["anything", "x"])
    assert np.isfinite(found.utility).all()
    assert np.isfinite(found.error).all()
    assert (found.quality >= -1e-6).all()
    assert (found.quality <= 1 + 1e-6).all()


@dataclass(kw_only=True)
class Meddling(Router):
    """Its scores depend on who else is there: the contract must notice."""

    def _fit(self, x, data):
        return {"mean": np.nanmean(data.quality, axis=0)}

    def _score(self, x, state):
        return np.tile(state["mean"], (len(x), 1))

    def predict_embedded(self, x, *, experts=None, cost_weight=None):
        found = super().predict_embedded(x, experts=experts, cost_weight=cost_weight)
        found.quality[:] /= found.quality.sum(axis=1, keepdims=True)
        return found


@dataclass(kw_only=True)
class Forgetful(Meddling):
    """Ignores the query's batch mates no more than it should, but draws at random."""

    def predict_embedded(self, x, *, experts=None, cost_weight=None):
        found = Router.predict_embedded(self, x, experts=experts, cost_weight=cost_weight)
        found.utility[:] += np.random.default_rng().random(found.utility.shape)
        return found


@pytest.mark.parametrize(
    ("broken", "claim"),
    [(Meddling, "leaving an expert out changes"), (Forgetful, "predicting twice gives the same")],
)
def test_the_contract_catches_a_broken_router(broken, claim, tmp_path):
    with pytest.raises(AssertionError, match=claim):
        check_router(broken(encoder=ENCODER), DATA, tmp_path)


def test_the_hashing_encoder_gives_unit_rows_that_depend_on_the_text():
    x = ENCODER.embed(["one two", "one two", "three", ""], role="query")
    assert x.shape == (4, 64)
    assert np.linalg.norm(x, axis=1) == pytest.approx(1)
    assert np.array_equal(x[0], x[1])
    assert x[0] @ x[2] < 0.9


def test_synthetic_outcomes_are_planted_and_repeatable():
    data = synthetic_outcomes(5, n=600)
    own = np.array([int(c[-1]) for c in data.category])
    assert data.quality[np.arange(600), own].mean() == pytest.approx(0.9, abs=0.05)
    assert data.quality[np.arange(600), (own + 1) % 3].mean() == pytest.approx(0.3, abs=0.08)
    assert data.digest == synthetic_outcomes(5, n=600).digest
