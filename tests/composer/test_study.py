import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from composer.study import Plan, study
from experts_registry.errors import OptionError, UnknownNameError
from routers.baselines import BestOnAverage, Random
from routers.category import CategoryRouter
from routers.encoding import CachedEncoder
from routers.testing import HashingEncoder, synthetic_outcomes

ENCODER = HashingEncoder(64)


class Counting:
    def __init__(self):
        self.digest, self.texts = ENCODER.digest, 0

    def embed(self, texts, *, role):
        self.texts += len(texts)
        return ENCODER.embed(texts, role=role)

    def close(self):
        pass


@pytest.fixture(scope="module")
def data():
    return synthetic_outcomes(3, n=400, experts=3, categories=4)


@pytest.fixture(scope="module")
def found(data):
    routers = {
        "category": CategoryRouter(encoder=ENCODER),
        "best": BestOnAverage(encoder=ENCODER),
    }
    told = []
    plan = Plan(refits=3, categories=2, experts=2, baseline="expert-0")
    result = study(routers, data, plan, advance=told.append)
    assert len(told) == result.fits == plan.fits(2, data)
    return result


def of(result, router, kind):
    return next(s for s in result.summaries if (s.router, s.kind) == (router, kind))


def test_a_planted_signal_is_found_in_every_refit(found):
    summary = of(found, "category", "random")
    assert summary.refits == 3
    assert summary.better == 3
    gain = summary.differences["best single"]
    assert 0 < gain.interval.low < gain.value < gain.interval.high
    assert summary.violations == 0
    assert {r.pinned for r in found.refits if r.kind == "random" and r.router == "category"} == {
        "better"
    }


def test_the_best_single_expert_is_no_better_than_itself(found):
    summary = of(found, "best", "random")
    assert summary.differences["best single"].value == 0
    assert (summary.better, summary.worse) == (0, 0)
    assert summary.differences["category"].value == pytest.approx(
        -of(found, "category", "random").differences["best"].value
    )


def test_left_out_categories_are_the_largest_and_all_their_queries_are_test(found, data):
    left = [r for r in found.refits if r.kind == "category" and r.router == "best"]
    count = sorted((data.category.count(c) for c in data.categories), reverse=True)
    assert [r.queries for r in left] == count[:2]


def test_probes_bring_a_hidden_expert_to_its_queries(found):
    cold = [c for c in found.cold_starts if c.router == "category"]
    assert len(cold) == 2
    assert {c.probes for c in cold} == {20}
    assert np.mean([c.full - c.prior for c in cold]) > 0
    # Twenty probes say more of its mean than none at all.
    assert np.mean([c.error[1] - c.error[0] for c in cold]) < 0


def test_queries_are_embedded_once(data):
    encoder = Counting()
    routers = {name: CategoryRouter(encoder=encoder, mode=name) for name in ("soft", "hard")}
    study(routers, data, Plan(refits=2, categories=1, experts=0))
    assert encoder.texts == len(data)


def test_violations_are_counted():
    data = synthetic_outcomes(n=400, experts=2, categories=1)  # expert-0 is the better one
    routers = {"random": Random(encoder=ENCODER)}
    found = study(routers, data, Plan(refits=4, categories=0, experts=0, baseline="expert-0"))
    assert of(found, "random", "random").violations == 1


def test_a_guard_is_made_from_the_training_data_of_each_refit(data):
    class Never:
        def __call__(self, scores, context):
            return np.where(np.arange(3) == 2, 1.0, 0.0) + np.zeros_like(scores)

        def note(self, before, after, context):
            return None

    seen = []

    def guard(router, z, train):
        seen.append((len(z), len(train), router.experts_))
        return [Never()]

    plan = Plan(refits=2, categories=0, experts=0, baseline="expert-2", guard=guard)
    found = study({"r": CategoryRouter(encoder=ENCODER)}, data, plan)
    assert seen == [(320, 320, data.experts)] * 2
    assert of(found, "r", "random").differences["best single"].value > 0
    assert of(found, "r with guard", "random").differences["best single"].value < 0
    assert of(found, "r with guard", "random").violations == 0


def test_missing_costs_leave_areas_unknown(data):
    unpriced = replace(data, cost=np.full(data.cost.shape, np.nan))
    routers = {"best": BestOnAverage(encoder=ENCODER)}
    found = study(routers, unpriced, Plan(refits=2, categories=0, experts=0))
    assert {r.aiq for r in found.refits} == {None}
    json.dumps(asdict(found), allow_nan=False)


def test_wrong_plans_say_what_would_be_right(data):
    with pytest.raises(OptionError, match="refits: -1 is below 0"):
        Plan(refits=-1)
    with pytest.raises(UnknownNameError, match="did you mean 'expert-1'"):
        study({}, data, Plan(baseline="expert1"))


def test_a_cached_encoder_computes_every_text_once_and_forgets_the_oldest():
    inner = Counting()
    cached = CachedEncoder(inner, capacity=3)
    plain = ENCODER.embed(["a", "b", "a"], role="query")
    assert np.array_equal(cached.embed(["a", "b", "a"], role="query"), plain)
    assert inner.texts == 2
    cached.embed(["c", "a"], role="query")
    assert inner.texts == 3
    cached.embed(["d"], role="query")  # drops b, which was used least recently
    cached.embed(["a", "c", "d"], role="query")
    assert inner.texts == 4
    cached.embed(["b"], role="query")
    assert inner.texts == 5
    assert cached.embed([], role="query").shape[0] == 0
    assert cached.digest == inner.digest
    cached.embed(["d"], role="passage")  # another role is another vector
    assert inner.texts == 6
