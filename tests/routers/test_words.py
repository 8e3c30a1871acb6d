from dataclasses import replace

import numpy as np
import pytest

from routers.linear import LinearRouter
from routers.splits import split
from routers.testing import HashingEncoder, synthetic_outcomes
from routers.words import WORDS, bag_of_words, beside_words

TEXTS = ["A cat sat on the mat.", "a CAT sat on the mat .", "Prove that 2 + 2 = 4", "", "🙂 \ud800"]


class Blind:
    """An encoder to which all texts are the same."""

    digest = "blind"

    def embed(self, texts, *, role):
        return np.tile(np.eye(1, 4, dtype=np.float32), (len(texts), 1))


def test_rows_are_unit_and_tell_words_apart_whatever_their_case_and_place():
    z = bag_of_words(TEXTS)
    assert np.linalg.norm(z[:4], axis=1) == pytest.approx([1, 1, 1, 0])
    assert z[0] @ z[1] == pytest.approx(1)
    assert abs(z[0] @ z[2]) < 0.3
    assert np.isfinite(z).all()
    assert bag_of_words([]).shape == (0, 1024)


def test_a_row_does_not_depend_on_the_others():
    assert np.array_equal(bag_of_words(TEXTS, 64)[2:3], bag_of_words(TEXTS[2:3], 64))


def test_cosines_are_those_of_the_words_on_average():
    """With signs, two words in one bucket cancel as often as they add up."""
    rng = np.random.default_rng(0)
    pairs = [rng.permutation(10_000)[:60] for _ in range(300)]
    first = [" ".join(f"w{i}" for i in p[:40]) for p in pairs]
    second = [" ".join(f"w{i}" for i in p[20:]) for p in pairs]  # half of the words in common
    cosine = (bag_of_words(first, WORDS) * bag_of_words(second, WORDS)).sum(axis=1)
    assert cosine.mean() == pytest.approx(0.5, abs=0.02)


def test_embedding_and_words_are_halves_of_a_unit_row():
    x, words = HashingEncoder(32).embed(TEXTS[:4], role="query"), bag_of_words(TEXTS[:4], WORDS)
    both = beside_words(x, TEXTS[:4])
    assert both.shape == (4, 32 + WORDS)
    assert both.dtype == np.float32
    assert both @ both.T == pytest.approx((x @ x.T + words @ words.T) / 2, abs=1e-6)


def test_a_router_reads_the_words_that_its_encoder_does_not():
    parts = split(synthetic_outcomes(3, n=400, experts=3, categories=3))
    router = LinearRouter(encoder=Blind(), penalty=10.0).fit(parts.train)

    def reached(queries):
        choice = router.predict(queries).utility.argmax(axis=1)
        return parts.test.quality[np.arange(len(parts.test)), choice].mean()

    assert reached(parts.test.queries) > 0.75  # 0.9 at best, 0.5 for any single expert
    silent = replace(parts.test, queries=tuple("?" * (i + 1) for i in range(len(parts.test))))
    assert reached(silent.queries) < 0.65
