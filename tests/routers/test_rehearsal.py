from dataclasses import dataclass, replace

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.auto import AutoRouter
from routers.base import Router
from routers.features import FEATURES, without_features
from routers.knn import KNNRouter
from routers.linear import LinearRouter
from routers.rehearsal import rehearse
from routers.testing import HashingEncoder, synthetic_outcomes
from routers.words import WORDS

ENCODER = HashingEncoder(64)
DATA = synthetic_outcomes(2, n=240, experts=3, categories=6)


@dataclass(kw_only=True)
class Memory(Router):
    """Knows a training query by heart and nothing of any other."""

    def _fit(self, x, data):
        return {"x": x, "quality": data.quality}

    def _score(self, x, state):
        similarity = x @ state["x"].T
        found = state["quality"][similarity.argmax(axis=1)]
        return np.where(similarity.max(axis=1, keepdims=True) > 0.9999, found, 0.5)


def fitted(router=None, data=DATA):
    return (router or LinearRouter(encoder=ENCODER, penalty=10.0)).fit(data)


@pytest.fixture(scope="module")
def state():
    return fitted().rehearse(DATA, keep=True).state_


def test_everything_it_promises_is_there(state):
    n, m = DATA.quality.shape
    for name in ("held", "away", "outcome"):
        assert state[f"rehearsal.{name}"].shape == (n, m)
    for name in ("near", "far", "kind"):
        assert state[f"rehearsal.{name}"].shape == (n,)
    assert state["rehearsal.x"] == pytest.approx(without_features(fitted().embed(DATA.queries)))
    assert all(array.dtype == np.float32 for array in state.values())
    assert "rehearsal.x" not in fitted().rehearse(DATA).state_


def test_no_query_is_spoken_of_by_a_router_that_saw_it():
    router = fitted(Memory(encoder=ENCODER))
    assert np.abs(router.predict(DATA.queries).quality - DATA.quality).max() == 0  # it has seen all
    found = router.rehearse(DATA).state_
    assert (found["rehearsal.held"] == 0.5).all()
    assert (found["rehearsal.away"] == 0.5).all()


def test_away_knows_less_than_held(state):
    """The best expert of a category is known only to who saw the category."""
    rows = np.arange(len(DATA))
    reached = {
        name: DATA.quality[rows, state[f"rehearsal.{name}"].argmax(axis=1)].mean()
        for name in ("held", "away")
    }
    assert reached["held"] > reached["away"] + 0.2
    assert (state["rehearsal.near"] > state["rehearsal.far"]).mean() > 0.8


def test_without_labels_groups_stand_for_categories():
    data = DATA.with_category([""] * len(DATA))
    found = fitted(data=data).rehearse(data).state_
    assert len(np.unique(found["rehearsal.kind"])) > 2
    assert np.isfinite(found["rehearsal.away"]).all()


def test_costs_are_left_to_whoever_weighs_them():
    dear = LinearRouter(encoder=ENCODER, penalty=10.0, cost_weight=0.9).fit(DATA).rehearse(DATA)
    free = fitted().rehearse(DATA)
    assert np.array_equal(dear.state_["rehearsal.held"], free.state_["rehearsal.held"])


def test_an_expert_that_a_part_never_saw_gets_the_prior():
    quality = DATA.quality.copy()
    quality[:, 2] = np.nan
    quality[:4, 2] = 1.0
    data = replace(DATA, quality=quality)
    found = fitted(data=data).rehearse(data).state_
    assert np.isfinite(found["rehearsal.held"]).all()
    assert np.isnan(found["rehearsal.outcome"]).any()


def test_auto_keeps_what_it_knows_from_fitting():
    router = AutoRouter(encoder=ENCODER).fit(DATA).rehearse(DATA)
    assert np.array_equal(router.state_["rehearsal.held"], router.state_["held"])


def test_one_query_or_one_kind_is_accepted():
    one = DATA.select([0])
    found = fitted(data=one).rehearse(one).state_
    assert np.isnan(found["rehearsal.held"]).all()
    same = DATA.with_category(["x"] * len(DATA))
    assert np.isfinite(fitted(data=same).rehearse(same).state_["rehearsal.held"]).all()


def test_an_unfitted_router_cannot_rehearse():
    with pytest.raises(OptionError, match="is not fitted"):
        KNNRouter(encoder=ENCODER).rehearse(DATA)


def test_it_rehearses_the_same_twice():
    router = fitted()
    z = router.embed(DATA.queries)
    first, second = rehearse(router, z, DATA), rehearse(router, z, DATA)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert z.shape[1] == 64 + WORDS + len(FEATURES)
