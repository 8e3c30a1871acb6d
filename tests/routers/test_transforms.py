from dataclasses import dataclass

import numpy as np

from routers.balance import Balance, Usage
from routers.decision import Prediction
from routers.guard import Guard
from routers.neighbours import Neighbours
from routers.transforms import Context, transform

EXPERTS = ("a", "b", "c")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
SCORES = RNG.random((5, 3))
AVAILABLE = np.array([[True, True, False]] * 3 + [[False, True, True], [True, False, False]])


def context(rows=slice(None)):
    scores = SCORES[rows]
    prediction = Prediction(
        experts=EXPERTS, quality=scores, error=scores, cost=scores, utility=scores
    )
    return Context(x=X[rows], prediction=prediction, available=AVAILABLE[rows])


@dataclass
class Add:
    number: float

    def __call__(self, scores, context):
        return scores + self.number

    def note(self, before, after, context):
        return f"added {self.number:g}" if self.number else None


def used():
    usage = Usage()
    usage.add({"a": 50.0})
    return usage


def neighbours():
    quality = (RNG.random((5, 3)) < 0.6).astype(float)
    quality[:, 0] = 1
    return Neighbours.fit(X, quality, experts=EXPERTS, own=0.5)


def test_every_transform_keeps_the_shape_and_what_is_unavailable():
    for change in (Balance(weight=0.3, usage=used()), neighbours(), Guard.never("b"), Add(1.0)):
        scores, notes = transform(SCORES, context(), [change])
        assert scores.shape == SCORES.shape
        assert np.array_equal(np.isneginf(scores), ~AVAILABLE)
        assert np.isfinite(scores[AVAILABLE]).all()
        assert notes == []  # only a single query is told about


def test_transforms_are_applied_in_order_and_speak_of_a_single_query():
    scores, notes = transform(SCORES[:1], context(slice(1)), [Add(1.0), Add(0.0), Add(2.0)])
    assert notes == ["added 1", "added 2"]
    assert np.allclose(scores[0, :2], SCORES[0, :2] + 3)


def test_without_transforms_only_the_unavailable_change_and_the_input_stays():
    before = SCORES.copy()
    scores, notes = transform(SCORES, context(), [])
    assert np.array_equal(scores, np.where(AVAILABLE, SCORES, -np.inf))
    assert np.array_equal(before, SCORES)
    assert notes == []


def test_where_nobody_may_be_asked_nothing_is_warned_about():
    nobody = Context(
        x=X[:1], prediction=context(slice(1)).prediction, available=np.zeros((1, 3), bool)
    )
    for change in (Balance(weight=0.3, usage=used()), neighbours(), Guard.never("b")):
        assert np.isneginf(transform(SCORES[:1], nobody, [change])[0]).all()
