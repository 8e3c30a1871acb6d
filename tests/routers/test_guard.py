from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import OptionError, UnknownNameError
from routers.base import load_router
from routers.decision import Prediction
from routers.guard import Guard
from routers.linear import LinearRouter
from routers.testing import HashingEncoder, synthetic_outcomes
from routers.transforms import Context, transform

EXPERTS = ("base", "other", "third")
KINDS = 5


def rehearsed(gain, seed=0, *, n=1500, cost=(1.0, 1.0, 1.0), noise=0.1):
    """Make what a router rehearsed that asks 'other' on half of the queries.

    ``gain`` is by how much 'other' is really better there: a number, or one per query (n,).
    """
    rng = np.random.default_rng(seed)
    chance = np.full((n, 3), 0.5)
    chance[:, 1] += gain
    held = np.full((n, 3), 0.4)
    held[:, 0] = 0.5
    held[:, 1] = 0.5 + noise * rng.normal(size=n)
    return {
        "rehearsal.held": held,
        "rehearsal.away": held + 0.0,
        "rehearsal.outcome": (rng.random((n, 3)) < chance).astype(float),
        "rehearsal.near": rng.uniform(0.4, 1.0, size=n),
        "rehearsal.far": rng.uniform(0.3, 0.9, size=n),
        "rehearsal.kind": np.arange(n) % KINDS,
        "rehearsal.centres": np.eye(1, 4),
        "prior.cost": np.array(cost),
        "prior.scale": np.array([np.nanmax(cost)]),
    }


def context(scores, *, near=1.0, experts=EXPERTS, available=None):
    """Make queries whose cosine to the only centre is ``near``."""
    x = np.zeros((len(scores), 4))
    x[:, 0] = near
    prediction = Prediction(
        experts=experts, quality=scores, error=scores, cost=scores, utility=scores
    )
    everybody = np.ones(scores.shape, dtype=bool)
    return Context(
        x=x, prediction=prediction, available=everybody if available is None else available
    )


def chosen(guard, scores, **options):
    scores = np.array(scores, dtype=float)
    found = transform(scores, context(scores, **options), [guard])[0]
    names = options.get("experts", EXPERTS)
    return [names[i] for i in found.argmax(axis=1)]


CLEAR = [[0.5, 0.9, 0.4]]  # a query on which 'other' is predicted to be much better


def test_a_better_expert_is_taken():
    guard = Guard.fit(rehearsed(0.2), EXPERTS, "base")
    assert guard.cheap.queries > 100
    assert 0 < guard.cheap.bound < guard.cheap.gain
    assert guard.cheap.gain == pytest.approx(0.2, abs=0.08)
    assert chosen(guard, CLEAR) == ["other"]


@pytest.mark.parametrize("gain", [0.0, -0.02, -0.2])
def test_an_equal_or_worse_expert_is_not(gain):
    guard = Guard.fit(rehearsed(gain), EXPERTS, "base")
    assert guard.cheap.least == np.inf
    assert chosen(guard, CLEAR) == ["base"]
    scores = np.array(CLEAR)
    _, notes = transform(scores, context(scores), [guard])
    assert notes == ["guard: keeps to the baseline base, no evidence that other loses nothing"]


def test_a_small_predicted_gain_stays_where_only_a_large_one_pays():
    state = rehearsed(0.0)
    gap = state["rehearsal.held"][:, 1] - 0.5
    pays = np.where(gap > np.quantile(gap, 0.8), 0.4, -0.1)
    guard = Guard.fit(rehearsed(pays), EXPERTS, "base")
    assert 0.03 < guard.cheap.least < 0.2
    assert chosen(guard, [[0.5, 0.5 + guard.cheap.least - 0.01, 0.4]]) == ["base"]
    assert chosen(guard, [[0.5, 0.5 + guard.cheap.least + 0.01, 0.4]]) == ["other"]


def test_a_dearer_expert_needs_the_premium():
    dear = rehearsed(0.15, cost=(1.0, 2.0, 1.0))
    taken = Guard.fit(dear, EXPERTS, "base", premium=0.01)
    assert taken.dearer == {"other"}
    assert chosen(taken, CLEAR) == ["other"]
    assert chosen(Guard.fit(dear, EXPERTS, "base", premium=0.3), CLEAR) == ["base"]
    cheap = rehearsed(0.15, cost=(2.0, 1.0, 1.0))
    assert chosen(Guard.fit(cheap, EXPERTS, "base", premium=0.3), CLEAR) == ["other"]


def test_a_tolerated_loss_lets_a_cheaper_expert_through_and_not_a_dearer_one():
    loses = rehearsed(-0.03, cost=(2.0, 1.0, 1.0))
    assert chosen(Guard.fit(loses, EXPERTS, "base", tolerance=0.0), CLEAR) == ["base"]
    tolerant = Guard.fit(loses, EXPERTS, "base", tolerance=0.2)
    assert tolerant.cheap.least < np.inf
    dearer = rehearsed(-0.03, cost=(1.0, 2.0, 1.0))
    assert Guard.fit(dearer, EXPERTS, "base", tolerance=0.2).dear.least == np.inf


def test_an_unknown_cost_counts_as_the_dearest():
    guard = Guard.fit(rehearsed(0.2, cost=(1.0, np.nan, 3.0)), EXPERTS, "base")
    assert guard.dearer == {"other", "third"}


def test_unfamiliar_queries_stay():
    guard = Guard.fit(rehearsed(0.2), EXPERTS, "base")
    assert 0.4 < guard.floor < 1
    assert guard.familiar == pytest.approx((rehearsed(0.2)["rehearsal.near"] >= guard.floor).mean())
    assert chosen(guard, CLEAR, near=guard.floor - 0.01) == ["base"]
    assert chosen(guard, CLEAR, near=guard.floor + 0.01) == ["other"]
    scores = np.array(CLEAR)
    _, notes = transform(scores, context(scores, near=0.1), [guard])
    assert notes[0].startswith(
        "guard: keeps to the baseline base, the query is unfamiliar (closeness 0.10 below"
    )


def harmed(far):
    """One category goes wrong as soon as it is left out; ``far`` it lies from the others."""
    state = rehearsed(0.25)
    wrong = state["rehearsal.kind"] == 0
    state["rehearsal.near"] = np.random.default_rng(1).uniform(0.4, 1.0, size=len(wrong))
    state["rehearsal.far"] = np.where(wrong, far, 0.95)
    away = state["rehearsal.away"]
    away[wrong] = [0.5, 0.4, 0.95]  # of the unknown kind it believes that 'third' is best
    state["rehearsal.outcome"][wrong, 2] = 0
    return state


def test_a_left_out_category_that_would_be_harmed_raises_the_floor():
    unharmed = Guard.fit(rehearsed(0.25), EXPERTS, "base")
    guard = Guard.fit(harmed(far=0.62), EXPERTS, "base")
    assert guard.floor > 0.62 > unharmed.floor
    assert chosen(guard, CLEAR, near=0.61) == ["base"]
    assert chosen(guard, CLEAR, near=0.99) == ["other"]


def test_where_no_floor_keeps_it_from_harm_nobody_leaves():
    guard = Guard.fit(harmed(far=1.0), EXPERTS, "base")
    # Only experts that are asked can harm: the bar may also be raised above that belief.
    assert guard.floor == np.inf or guard.cheap.least > 0.45


def test_more_confidence_raises_the_bar():
    bounds = [
        Guard.fit(rehearsed(0.2), EXPERTS, "base", confidence=c).cheap.bound
        for c in (0.5, 0.95, 0.999)
    ]
    assert bounds == sorted(bounds, reverse=True)
    taken = [
        sum(
            chosen(Guard.fit(rehearsed(0.08, s), EXPERTS, "base", confidence=c), CLEAR) == ["other"]
            for s in range(20)
        )
        for c in (0.6, 0.999)
    ]
    assert taken[0] > taken[1] + 3


def test_a_newcomer_has_no_evidence():
    guard = Guard.fit(rehearsed(0.2), EXPERTS, "base")
    names = ("base", "other", "new")
    assert chosen(guard, [[0.5, 0.6, 0.99]], experts=names) == ["base"]
    scores = np.array([[0.5, 0.6, 0.99]])
    assert transform(scores, context(scores, experts=names), [guard])[1] == [
        "guard: keeps to the baseline base, new has no outcomes yet"
    ]


def test_where_the_baseline_cannot_be_asked_the_best_one_is():
    guard = Guard.fit(rehearsed(0.0), EXPERTS, "base")
    without = np.array([[False, True, True]])
    assert chosen(guard, CLEAR, available=without) == ["other"]
    assert chosen(guard, [[0.9, 0.4]], experts=("other", "third")) == ["other"]


def test_the_others_keep_their_order_behind_the_baseline():
    scores = np.array([[0.5, 0.9, 0.7], [0.5, 0.7, 0.9], [0.9, 0.5, 0.7]])
    guarded = transform(scores, context(scores), [Guard.never("base")])[0]
    assert np.argsort(-guarded, axis=1).tolist() == [[0, 1, 2], [0, 2, 1], [0, 2, 1]]
    assert np.array_equal(guarded[:, 0], scores[:, 0])
    assert np.array_equal(guarded[2], scores[2])  # where the baseline leads nothing changes


def test_the_cost_weight_of_the_decision_counts():
    state = rehearsed(0.2, cost=(1.0, 2.0, 1.0))
    assert Guard.fit(state, EXPERTS, "base").dear.queries > 500
    assert Guard.fit(state, EXPERTS, "base", cost_weight=2.0).dear.queries == 0


def test_what_experts_outside_the_composition_won_is_no_evidence():
    state = rehearsed(0.0)
    state["rehearsal.held"][:, 2] = state["rehearsal.away"][:, 2] = 0.9
    state["rehearsal.outcome"][:, 2] = 1.0  # 'third' would be chosen, and is always right
    everyone = Guard.fit(state, EXPERTS, "base")
    assert everyone.cheap.least < np.inf
    guard = Guard.fit(state, EXPERTS, "base", among=["base", "other"])
    assert guard.known == {"base", "other"}
    assert guard.cheap.least == np.inf


def test_few_queries_or_perfect_luck_are_no_evidence():
    few = rehearsed(0.5, n=30)
    assert Guard.fit(few, EXPERTS, "base").cheap.least == np.inf
    lucky = rehearsed(0.0, n=44)
    lucky["rehearsal.outcome"][:, 0] = 0.98
    lucky["rehearsal.outcome"][:, 1] = 1.0  # always a little better, on some twenty queries
    assert Guard.fit(lucky, EXPERTS, "base").cheap.least == np.inf


def test_missing_outcomes_are_left_out():
    state = rehearsed(0.3)
    full = Guard.fit(state, EXPERTS, "base").cheap
    state["rehearsal.outcome"][::2, 1] = np.nan
    half = Guard.fit(state, EXPERTS, "base").cheap
    assert half.queries < 0.6 * full.queries
    assert half.least < np.inf
    state["rehearsal.outcome"][:, 0] = np.nan
    assert Guard.fit(state, EXPERTS, "base").cheap.queries == 0


def test_queries_that_could_not_be_rehearsed_are_left_out():
    state = rehearsed(0.3)
    state["rehearsal.held"][:] = state["rehearsal.away"][:] = np.nan
    assert chosen(Guard.fit(state, EXPERTS, "base"), CLEAR) == ["base"]


def test_a_baseline_without_outcomes_and_a_router_without_rehearsal_are_refused():
    with pytest.raises(UnknownNameError, match=r"baseline 'bse' is not one of base, other, third"):
        Guard.fit(rehearsed(0.0), EXPERTS, "bse")
    with pytest.raises(OptionError, match=r"has not rehearsed; call rehearse\(data\) first"):
        Guard.fit({}, EXPERTS, "base")


def significantly_below(guard, state):
    """Whether the paired gain of following the guard on these queries is below zero."""
    scores, outcome = state["rehearsal.held"], state["rehearsal.outcome"]
    guarded = transform(scores, context(scores), [guard] if guard else [])[0]
    rows = np.arange(len(scores))
    gain = outcome[rows, guarded.argmax(axis=1)] - outcome[:, 0]
    return gain.mean() < -1.96 * gain.std() / np.sqrt(len(gain)) - 1e-12


@pytest.mark.parametrize("gain", [0.0, -0.04])
def test_of_200_resamples_at_most_5_percent_fall_significantly_below_the_baseline(gain):
    below, bare = 0, 0
    for seed in range(200):
        guard = Guard.fit(rehearsed(gain, seed, n=400), EXPERTS, "base")
        fresh = rehearsed(gain, 10_000 + seed)
        below += significantly_below(guard, fresh)
        bare += significantly_below(None, fresh)
    assert below <= 10
    if gain < 0:
        assert bare > 30  # without the guard it happens often


def test_saving_a_router_keeps_its_guard(tmp_path):
    encoder = HashingEncoder(64)
    data = synthetic_outcomes(1, n=300, experts=3, categories=3)
    router = LinearRouter(encoder=encoder, penalty=10.0).fit(data).rehearse(data)
    loaded = load_router(router.save(tmp_path / "router"), encoder=encoder)
    before, after = (Guard.fit(r.state_, r.experts_, "expert-0") for r in (router, loaded))
    assert before.dear.least < np.inf  # it leaves the baseline at all
    for name in ("cheap", "dear", "floor", "familiar", "known", "dearer"):
        assert getattr(before, name) == getattr(after, name)
    for query in data.queries[:20]:
        assert router.route(query, transforms=[before]) == loaded.route(query, transforms=[after])


def test_a_planted_signal_survives_the_guard_and_a_shuffled_one_does_not():
    encoder = HashingEncoder(64)
    data = synthetic_outcomes(4, n=900, experts=3, categories=6)
    train, test = data.select(np.arange(600)), data.select(np.arange(600, 900))
    rows = np.random.default_rng(0).permutation(600)
    share = []
    for outcomes in (train, replace(train, quality=train.quality[rows])):
        router = LinearRouter(encoder=encoder, penalty=10.0).fit(outcomes).rehearse(outcomes)
        guard = Guard.fit(router.state_, router.experts_, "expert-0")
        chosen_ = [router.route(q, transforms=[guard]).primary for q in test.queries]
        share.append(np.mean([c != "expert-0" for c in chosen_]))
    assert share[0] > 0.05
    assert share[1] == 0
