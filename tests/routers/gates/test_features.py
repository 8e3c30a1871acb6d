import math

import numpy as np
import pytest

from routers.gates.features import WORDING, document_frequencies, rarity, wording
from routers.gates.search import search_features


def told(query: str) -> dict[str, float]:
    return dict(zip(WORDING, wording([query])[0], strict=True))


def test_wording_of_a_question():
    found = told("How many goals did Lionel Messi score for FC Barcelona in 2012?")
    assert (found["how many"], found["how"], found["asks otherwise"]) == (1, 0, 0)
    assert (found["names"], found["digits"]) == (2, 1)
    assert found["log words"] == pytest.approx(math.log1p(12))
    assert told("is it larger or smaller")["comparison"] == 1
    assert told("Name a river.")["asks otherwise"] == 1
    assert wording(["", "…"]).sum() == 2  # nothing but that they ask otherwise


def test_the_rarest_word_is_the_one_that_no_passage_holds():
    table = document_frequencies(["the red fox", "the blue fox", "the sea"])
    known, unknown = rarity(["the fox", "the quetzal"], table)
    assert known[0] == pytest.approx(math.log(4 / 3))
    assert unknown[0] == pytest.approx(math.log(4))
    assert np.isnan(rarity(["?"], table)).all()


def test_a_shallower_search_than_in_training_tells_only_its_best():
    assert search_features([0.9, 0.5], depth=2).tolist()[:3] == pytest.approx([0.9, 0.4, 0.7])
    assert np.isnan(search_features([0.9], depth=2)).tolist() == [False, True, True, True]
    assert np.isnan(search_features([])).all()
