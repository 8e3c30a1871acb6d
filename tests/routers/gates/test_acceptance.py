"""What a gate must do on data of which the right decisions are known."""

from dataclasses import replace

import numpy as np
import pytest

from routers.gates.data import GateData
from routers.gates.drafting import choose
from routers.gates.price import RetrievalPrice
from routers.gating import Gate
from routers.testing import HashingEncoder
from tests.routers.gates.conftest import shuffled, two_regimes, utility


def decisions(gate: Gate, data: GateData) -> np.ndarray:
    taken = [gate.decide(q, ["toy"], stores=["handbook"]) for q in data.queries]
    return np.array([int(decision.is_retrieving) for decision in taken])


def test_two_regimes_are_told_apart_at_95_percent_of_the_oracles_utility(gate, world):
    test, price = world[1], gate.price.per_retrieval
    reached = utility(test, decisions(gate, test), {1: price})
    best = (test.quality[:, 0] - np.array([0, price])).max(axis=1).mean()
    always = utility(test, np.ones(len(test), dtype=int), {1: price})
    assert gate.verdicts[0].has_skill
    assert reached >= 0.95 * best > always


@pytest.mark.parametrize("seed", range(4))
def test_outcomes_of_other_questions_leave_the_better_constant(seed):
    data = GateData.of(shuffled(two_regimes(160, seed=seed), seed))
    gate = Gate.fit(data, HashingEncoder())
    taken = [gate.decide(q, ["toy"], stores=["handbook"]) for q in data.queries[:8]]
    assert {decision.stage for decision in taken} == {"guard"}
    assert {decision.store for decision in taken} == {"handbook"}  # right more often on average
    assert "does not tell" in taken[0].reason


def test_free_passages_that_never_hurt_are_always_retrieved(world):
    data = GateData.of(two_regimes(120, misleading=0.0))
    gate = Gate.fit(data, HashingEncoder(), price=RetrievalPrice(per_retrieval=0))
    assert decisions(gate, world[1].select(range(12))).all()


@pytest.mark.parametrize(
    "price",
    [RetrievalPrice(per_retrieval=np.inf), RetrievalPrice(quality_per_usd=np.inf)],
    ids=["retrieval", "money"],
)
def test_at_an_infinite_price_nothing_is_retrieved(gate, world, price):
    assert not decisions(gate.repriced(price), world[1].select(range(12))).any()


def test_costs_add_up_to_the_formula(gate, world):
    """E[C] = C_gen + rho (C_ret + C_ctx), and of nothing else."""
    test = world[1]
    priced = gate.repriced(RetrievalPrice(per_retrieval=0, quality_per_usd=10, usd_per_second=0.01))
    arm = decisions(priced, test)
    rows, usd = np.arange(len(test)), test.usd[:, 0] + 0.01 * test.seconds[:, 0]
    expected = 0.011 + arm.mean() * (0.003 + 0.005)
    assert usd[rows, arm].mean() == pytest.approx(expected)
    (charged,) = priced.price.retrieving(gate.state["usd"][0], gate.state["seconds"][0])
    assert charged == pytest.approx(10 * (0.003 + 0.005))


def test_every_draft_is_paid_for_as_no_answer_goes_on_from_one():
    chances = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]])
    found = choose(chances, np.array([0.9, 0.1, 0.9]), np.array([0.02]), 0.2, 0.03)
    assert found.arm.tolist() == [0, 1, 1]
    assert found.asked.tolist() == [True, True, False]
    assert found.paid.tolist() == [0.03, 0.03, 0]


def test_a_dearer_retrieval_is_bought_less_often(gate, world):
    rates = [
        decisions(gate.repriced(replace(gate.price, per_retrieval=p)), world[1]).mean()
        for p in (0.0, 0.3, 0.999)
    ]
    assert rates == sorted(rates, reverse=True)
