"""How often the guard is fooled by gates that are worth nothing, and what still convinces it."""

import numpy as np
import pytest

from routers.gates.guard import ENOUGH, chance_above


def sparse(rng, n=60):
    """Return differences of which few are not 0, as often won as lost."""
    return rng.choice([0.0, 1.0, -1.0], p=[0.9, 0.05, 0.05], size=n)


def skewed(rng, n=60):
    """Return a small price that is always saved, and rare losses that undo it."""
    return 0.02 - (rng.random(n) < 0.02)


def even(rng, n=60):
    """Return differences that are not 0 at any query."""
    return rng.normal(scale=0.3, size=n)


@pytest.mark.parametrize("drawn", [sparse, skewed, even])
def test_what_is_worth_nothing_passes_no_oftener_than_it_may(drawn):
    rng = np.random.default_rng(0)
    fooled = np.mean([chance_above(drawn(rng)) >= ENOUGH for _ in range(300)])
    assert fooled <= 1 - ENOUGH + 0.035  # two standard errors


def test_three_queries_prove_nothing_and_six_do():
    won = np.zeros(200)
    won[:3] = 1
    assert chance_above(won) < ENOUGH
    won[:6] = 1
    assert chance_above(won) >= ENOUGH


def test_a_price_that_is_always_saved_convinces_once_a_loss_would_not_undo_it():
    assert chance_above(np.full(30, 0.02)) < ENOUGH < chance_above(np.full(300, 0.02))
