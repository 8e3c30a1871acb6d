"""Baselines against what their papers' rules give by hand."""

import numpy as np
import pytest

from routers.gates.data import GateData
from routers.gates.policies import (
    Always,
    CategoryMajority,
    Never,
    Oracle,
    RandomAtRate,
    SkrKnn,
    Threshold,
)
from tests.routers.gates.conftest import two_regimes

PRICE = np.array([0.02])


def data(**fields) -> GateData:
    return GateData.of(two_regimes(40, searched=True, **fields))


def reached(policy, on: GateData) -> float:
    x = np.eye(len(on))
    shares = policy.fit(on, x, 0, PRICE).shares(on, x, 0)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(on)))
    return float((shares * (on.quality[:, 0] - np.append(0, PRICE))).sum(axis=1).mean())


def test_random_is_between_the_constants():
    never, always, random = (reached(p, data()) for p in (Never(), Always(), RandomAtRate(0.25)))
    assert random == pytest.approx(0.75 * never + 0.25 * always)


def test_majority_threshold_and_oracle_find_the_two_regimes():
    best = reached(Oracle(), data())
    assert reached(CategoryMajority(), data()) == pytest.approx(best)
    assert reached(Threshold("similarity"), data()) == pytest.approx(best)
    assert reached(Threshold("draft"), data(drafts=True)) == pytest.approx(best)


def test_oracle_does_not_pay_for_what_makes_no_difference():
    shares = Oracle().fit(data(), np.eye(40), 0, PRICE).shares(data(), np.eye(40), 0)
    gains = data().quality[:, 0, 1] > data().quality[:, 0, 0]
    assert (shares[:, 1] == gains).all()


def test_the_nearest_solved_questions_vote():
    solved = data(misleading=1.0)
    kind = (np.arange(40) % 2)[:, None] == np.arange(2)
    x = kind.astype(float)
    policy = SkrKnn(neighbors=5).fit(solved, x, 0, PRICE)
    assert policy.shares(solved, np.eye(2), 0)[:, 1].tolist() == [1.0, 0.0]


def test_a_surplus_of_the_prior_is_needed_where_most_questions_are_helped():
    """n_better 30, n_worse 10 of n 40, k 8: better must lead by int(20 * 8 / 40) = 4."""
    rows = two_regimes(40, misleading=1.0)
    few = [r | {"quality": float(r["expert"] == "toy")} if int(r["query_id"][1:]) % 4 == 1
           else r | {"quality": float(r["expert"] != "toy")} for r in rows]  # fmt: skip
    solved = GateData.of(few)
    helps = solved.quality[:, 0, 1] > solved.quality[:, 0, 0]

    def votes(better: int) -> float:
        near = np.concatenate(
            [np.flatnonzero(helps)[:better], np.flatnonzero(~helps)[: 8 - better]]
        )
        x = np.zeros((40, 1))
        x[near] = 1
        return SkrKnn(neighbors=8).fit(solved, x, 0, PRICE).shares(solved, np.ones((1, 1)), 0)[0, 1]

    assert (helps.sum(), votes(6), votes(5)) == (30, 1.0, 0.0)
