import logging
import os
from pathlib import Path

import numpy as np
import pytest

from composer.judged import read_corpus, read_judged
from composer.stores.lexical import Lexical, words_of
from experts_registry.errors import ArtefactError, DataError

SHARED = Path(os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[4] / "shared/data"))
TEXTS = ["The cat sat on the mat.", "Dogs chase cats.", "", "A bird: kleine Straße 12"]


@pytest.fixture
def lexical(tmp_path):
    return Lexical.build(TEXTS, tmp_path / "words")


def test_rare_words_count_most(lexical):
    rows, scores = lexical.search("the MAT, the cat", 10)
    assert rows[0] == 0
    assert scores[0] > 0


def test_scores_are_those_of_bm25(lexical):
    """By the formula of Robertson and Zaragoza with Lucene's idf, k1 = 0.9, b = 0.4."""
    (row,), (score,) = lexical.search("dogs", 1)
    lengths = [6, 3, 1, 5]  # a text without words counts as one
    idf = np.log(1 + (4 - 1 + 0.5) / (1 + 0.5))
    share = 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 3 / np.mean(lengths)))
    assert row == 1
    assert score == pytest.approx(idf * share, rel=1e-5)


def test_only_passages_with_a_word_of_the_query_are_found(lexical):
    assert lexical.search("mat", 10)[0].tolist() == [0]
    for nothing in ("zebra", "", "?!"):
        assert len(lexical.search(nothing, 10)[0]) == 0


def test_no_more_than_asked_for_best_first(tmp_path):
    lexical = Lexical.build([f"{'word ' * (i % 7)} filler" for i in range(50)], tmp_path)
    rows, scores = lexical.search("word", 5)
    assert len(rows) == 5
    assert all(np.diff(scores) <= 0)
    assert set((rows % 7).tolist()) == {6}
    assert rows.tolist() == sorted(rows.tolist())  # ties by row


def test_case_and_forms_of_letters_do_not_matter(lexical):
    assert lexical.search("STRASSE", 1)[0].tolist() == [3]
    assert list(words_of("ﬁne \uff21\uff22")) == ["fine", "ab"]


def test_scripts_without_spaces_are_searched_by_pairs(tmp_path):
    lexical = Lexical.build(["東京都に住む", "京都に住む", "大阪"], tmp_path)
    assert lexical.search("東京", 3)[0].tolist() == [0]
    assert sorted(lexical.search("京都", 3)[0].tolist()) == [0, 1]


def test_marks_inside_words_do_not_part_them():
    assert list(words_of("हिन्दी भाषा")) == ["हिन्दी", "भाषा"]


def test_texts_without_any_word_can_be_indexed(tmp_path):
    lexical = Lexical.build(["!", ""], tmp_path)
    assert len(lexical) == 2
    assert len(lexical.search("word", 2)[0]) == 0


def test_building_says_nothing(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        Lexical.build(TEXTS, tmp_path)
    assert caplog.records == []


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no text"):
        Lexical.build([], tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY broken"])
def test_a_damaged_index_is_an_error(tmp_path, lexical, content):
    for path in (tmp_path / "words").glob("data*"):
        path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ArtefactError, match="store build"):
        Lexical.open(tmp_path / "words")


@pytest.mark.data
def test_scifact_is_searched_as_well_as_published(tmp_path):
    """BEIR's table has nDCG@10 of 0.665 for BM25, by stems; ours has none."""
    measures = pytest.importorskip("ir_measures")
    folder = SHARED / "ir_scifact"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    corpus = read_corpus(folder)
    names = list(corpus)
    lexical = Lexical.build(corpus.values(), tmp_path)
    queries = read_judged(folder, split="test")
    run = [
        measures.ScoredDoc(query.id, names[row], float(score))
        for query in queries
        for row, score in zip(*lexical.search(query.text, 10), strict=True)
    ]
    judged = [
        measures.Qrel(q.id, name, grade) for q in queries for name, grade in q.relevant.items()
    ]
    ndcg = measures.calc_aggregate([measures.nDCG @ 10], judged, run)[measures.nDCG @ 10]
    assert 0.65 < ndcg < 0.72
