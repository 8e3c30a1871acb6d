import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import characters, text

from experts_registry.errors import OptionError
from routers.features import (
    FEATURES,
    as_learned,
    feature_scale,
    standardised,
    text_features,
    window,
    without_features,
)
from routers.words import WORDS


def of(query):
    return dict(zip(FEATURES, text_features([query])[0].tolist(), strict=True))


def test_lengths_are_logarithms():
    found = of("one two\nthree four five\n")
    assert found["log characters"] == pytest.approx(np.log1p(24))
    assert found["log words"] == pytest.approx(np.log1p(4))  # three blanks
    assert found["log lines"] == pytest.approx(np.log1p(2))


def test_signs_are_counted_as_shares_of_the_text():
    found = of("12AB{}+-*?")
    shares = ("digits", "capitals", "brackets and other code signs", "formula signs")
    assert [found[name] for name in shares] == pytest.approx([0.2, 0.2, 0.2, 0.3])
    assert found["asks"] == 1


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("été à l'œuvre", "accented letters"),
        ("Какой сегодня день", "Cyrillic, Greek, Arabic, Hebrew, Indic"),
        ("ما هو اليوم", "Cyrillic, Greek, Arabic, Hebrew, Indic"),
        ("आज कौन सा दिन है", "Cyrillic, Greek, Arabic, Hebrew, Indic"),
        ("今天天气怎么样", "Chinese, Japanese, Korean"),
        ("오늘은 무슨 요일", "Chinese, Japanese, Korean"),
        ("きょうはなんようび", "Chinese, Japanese, Korean"),
    ],
)
def test_scripts_are_told_apart(text, script):
    found = of(text)
    scripts = {name: found[name] for name in FEATURES[7:10]}
    assert max(scripts, key=scripts.get) == script
    assert sum(scripts.values()) == pytest.approx(scripts[script])
    assert not any(of("plain English text")[name] for name in FEATURES[7:10])


@pytest.mark.parametrize(
    ("text", "is_code"),
    [
        ("```\nx\n```", 1),
        ("def f(x): return x", 1),
        ("SELECT name FROM users", 1),
        ("int x = 3;\nx++;  ", 1),
        ("a line\n} \nmore", 1),
        ("redefine the sprint; classy functional imports", 0),
        ("why? because; then {so} on.", 0),
    ],
)
def test_code_is_recognised(text, is_code):
    assert of(text)["looks like code"] == is_code


@pytest.mark.parametrize("text", ["", " ", "\n", "🙂", "\x00", "\ud800", "\U0010ffff", "￿"])
def test_odd_texts_have_features(text):
    assert np.isfinite(text_features([text])).all()
    assert np.isfinite(text_features([window(text)])).all()


def test_no_texts_have_no_rows():
    assert text_features([]).shape == (0, len(FEATURES))


@pytest.mark.parametrize("text", ["; " * 500_000, ";" + " " * 500_000 + "x", "print" * 200_000])
def test_a_huge_text_is_read_at_once(text):
    began = time.perf_counter()
    assert np.isfinite(text_features([window(text)])).all()
    assert time.perf_counter() - began < 0.5


def test_a_row_does_not_depend_on_the_others():
    texts = ["one", "two 2", "три", ""]
    assert np.array_equal(text_features(texts)[1:2], text_features(texts[1:2]))


def z_of(n=50, d=3):
    rng = np.random.default_rng(0)
    return np.hstack([rng.normal(size=(n, d)), 5 + 2 * rng.normal(size=(n, len(FEATURES)))])


def test_standardised_features_are_centred_and_bounded_and_embeddings_untouched():
    z = z_of()
    before = z.copy()
    found = standardised(z, feature_scale(z))
    assert np.array_equal(z, before)
    assert np.array_equal(found[:, :3], z[:, :3])
    assert found[:, 3:].mean(axis=0) == pytest.approx(0, abs=0.01)
    assert found[:, 3:].std(axis=0) == pytest.approx(0.1, abs=0.01)
    far = standardised(z * 1000, feature_scale(z))
    assert np.abs(far[:, 3:]).max() == pytest.approx(0.5)


def test_a_feature_that_never_changes_says_nothing():
    z = z_of()
    z[:, 4] = 7.0
    assert standardised(z, feature_scale(z))[:, 4] == pytest.approx(0)


def test_what_is_missing_beside_an_embedding_is_unknown_words_and_mean_features():
    z = z_of(d=3 + WORDS)
    scale, width = feature_scale(z), z.shape[1]
    assert np.array_equal(as_learned(z, width, scale), standardised(z, scale))
    plain = as_learned(without_features(z), width, scale)
    assert np.array_equal(without_features(plain), without_features(z))
    assert not plain[:, 3 + WORDS :].any()
    alone = as_learned(z[:, :3], width, scale)
    assert alone.shape == z.shape
    assert alone[:, :3] == pytest.approx(z[:, :3] * np.sqrt(0.5))  # as beside words
    assert not alone[:, 3:].any()
    with pytest.raises(OptionError, match=r"x: has 5 columns; give what .* of 3 dimensions"):
        as_learned(z[:, :5], width, scale)


@given(text(alphabet=characters(max_codepoint=127), max_size=200))
def test_plain_texts_are_read_as_all_others_are(query):
    (plain,), (other,) = text_features([query]), text_features([query + "\u2603"])
    # The snowman counts for nothing but one character more.
    shares = slice(3, 10)
    assert plain[shares] * len(query) == pytest.approx(other[shares] * (len(query) + 1), abs=1e-4)
    assert list(plain[1:3]) == list(other[1:3])
