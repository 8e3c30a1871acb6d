import pytest

from composer.stores.fusion import fused


def test_scores_are_sums_of_reciprocal_ranks():
    scores = fused([[7, 3], [3, 9]])
    assert list(scores) == [3, 7, 9]
    assert scores[3] == pytest.approx(1 / 61 + 1 / 62)
    assert scores[9] == pytest.approx(1 / 62)


def test_ties_are_as_the_first_list_has_them():
    assert list(fused([[1, 2], [2, 1]])) == [1, 2]
    assert list(fused([[5], [4]])) == [5, 4]


def test_one_list_keeps_its_order():
    assert list(fused([[4, 2, 9]])) == [4, 2, 9]


def test_nothing_gives_nothing():
    assert fused([]) == fused([[], []]) == {}
