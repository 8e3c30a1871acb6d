"""How often the guard is fooled by gates that choose by chance, and what convinces it."""

import numpy as np
import pytest

from routers.gates.guard import ENOUGH, FEWEST, judge

N = 60


def seldom_apart(rng):
    """Passages help as often as they hurt, and mostly do neither."""
    gain = rng.choice([0.0, 1.0, -1.0], p=[0.8, 0.1, 0.1], size=N)
    return np.stack([np.zeros(N), gain], axis=1)


def skewed(rng):
    """They are worth their price: two in a hundred are right by them alone."""
    return np.stack([np.zeros(N), (rng.random(N) < 0.02) - 0.02], axis=1)


def apart(rng):
    """Both arms are right on half of the queries, each on its own."""
    return (rng.random((N, 2)) < 0.5).astype(float)


@pytest.mark.parametrize("world", [seldom_apart, skewed, apart])
def test_gates_that_choose_by_chance_pass_no_oftener_than_they_may(world):
    rng = np.random.default_rng(0)
    fooled = np.mean([judge(world(rng), rng.integers(2, size=N)).has_skill for _ in range(300)])
    assert fooled <= 1 - ENOUGH + 0.035  # two standard errors


def test_a_few_queries_prove_nothing_however_well_they_went():
    utility = np.stack([np.zeros(300), np.full(300, 0.5)], axis=1)
    utility[:40, 0], utility[:40, 1] = 1, 0
    chosen = np.ones(300, dtype=int)
    chosen[: FEWEST - 1] = 0
    assert judge(utility, chosen).arm == 1
    chosen[:FEWEST] = 0
    assert judge(utility, chosen).has_skill


def test_to_save_passages_where_they_never_help_is_skill():
    helps = np.arange(80) % 2 == 0
    utility = np.stack([~helps, np.full(80, 0.98)], axis=1).astype(float)
    verdict = judge(utility, helps.astype(int))
    assert verdict.has_skill
    assert verdict.best == 1
