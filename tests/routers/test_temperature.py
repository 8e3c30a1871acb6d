import numpy as np
import pytest

from routers.temperature import fit_temperature_of_best


def planted(temperature, *, n=6000, m=6, seed=0):
    """Scores, and qualities of which the best is drawn from softmax(scores / temperature)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.6, 0.1, size=(n, m))
    best = (scores / temperature + rng.gumbel(size=(n, m))).argmax(axis=1)
    return scores, np.eye(m)[best]


def cross_entropy(scores, quality, temperature):
    known = ~np.isnan(quality)
    weight = np.where(known, np.exp((scores - scores.max()) / temperature), 0)
    share = weight / weight.sum(axis=1, keepdims=True)
    target = np.where(known, quality, -1) == np.nanmax(quality, axis=1, keepdims=True)
    log = np.log(np.where(target, share, 1))
    return -(log.sum(axis=1) / target.sum(axis=1)).mean()


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
def test_a_planted_temperature_is_found(temperature):
    scores, quality = planted(temperature)
    assert fit_temperature_of_best(scores, quality) == pytest.approx(temperature, rel=0.15)


@pytest.mark.parametrize("graded", [1.0, 0.6])
def test_no_temperature_of_a_grid_is_better_also_with_ties_and_holes(graded):
    rng = np.random.default_rng(1)
    scores = rng.random((400, 5))
    quality = (rng.random((400, 5)) < scores).astype(float)
    quality[rng.random((400, 5)) > graded] = np.nan
    fitted = fit_temperature_of_best(scores, quality)
    both = (~np.isnan(quality)).sum(axis=1) > 1
    losses = [
        cross_entropy(scores[both], quality[both], t)
        for t in [fitted, *np.geomspace(0.01, 100, 400)]
    ]
    assert losses[0] <= min(losses) + 1e-9
    assert 0.01 < fitted < 100


def test_it_scales_with_the_scores_and_a_constant_per_query_does_not_matter():
    scores, quality = planted(0.1, n=500)
    fitted = fit_temperature_of_best(scores, quality)
    assert fit_temperature_of_best(scores * 7, quality) == pytest.approx(7 * fitted)
    shift = np.random.default_rng(2).normal(size=(500, 1))
    assert fit_temperature_of_best(scores + shift, quality) == pytest.approx(fitted)


def test_scores_that_say_nothing_give_nearly_equal_shares():
    scores, quality = planted(0.1)
    shuffled = np.random.default_rng(3).permutation(scores.ravel()).reshape(scores.shape)
    fitted = fit_temperature_of_best(shuffled, quality)
    assert (shuffled / fitted).std() < 0.1
    assert fit_temperature_of_best(-scores, quality) > 100  # worse than nothing: the upper end


def test_a_missing_cell_and_an_unavailable_expert_count_alike():
    scores, quality = planted(0.1, n=300)
    holes = np.random.default_rng(4).random(scores.shape) < 0.3
    missing = np.where(holes, np.nan, quality)
    shut = np.where(holes, -np.inf, scores)
    assert fit_temperature_of_best(scores, missing) == fit_temperature_of_best(shut, quality)


def test_where_nothing_can_be_told_it_is_one():
    assert fit_temperature_of_best(np.zeros((3, 2)), np.eye(3, 2)) == 1
    assert fit_temperature_of_best(np.empty((0, 2)), np.empty((0, 2))) == 1
    assert fit_temperature_of_best(np.ones((3, 1)), np.ones((3, 1))) == 1
