import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.stores.chunking import passages
from composer.stores.document import Document
from experts_registry.retrieval_schema import ChunkSpec

PIECES = st.sampled_from(
    [
        "word ",
        "Ende. ",
        "x",
        "。",
        "東京",
        "ไทย",
        "\n",
        "\n\n",
        "\r\n\r\n",
        "# Title\n",
        "\t",
        "😀",
        "\f",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=120).map("".join)
SPECS = st.builds(ChunkSpec, words=st.integers(8, 40), overlap=st.integers(0, 50))
SPACED = st.lists(
    st.tuples(st.sampled_from(["a", "word", "End."]), st.sampled_from([" ", "\n", "\n\n"])),
    min_size=1,
    max_size=150,
).map(lambda parts: "".join(word + gap for word, gap in parts))


def cut(text, **spec):
    return list(passages([Document(id="d", text=text, source="d")], ChunkSpec(**spec)))


@given(TEXTS, SPECS)
def test_passages_cover_a_document_at_exact_places(text, spec):
    found = list(passages([Document(id="d", text=text)], spec))
    assert all(p.text == text[p.start : p.end] for p in found)
    assert all(p.text == p.text.strip() != "" for p in found)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(found))
    covered = {i for p in found for i in range(p.start, p.end)}
    assert all(i in covered for i, c in enumerate(text) if not c.isspace())
    assert len({p.id for p in found}) == len(found)


@given(SPACED, SPECS)
def test_words_and_overlap_are_bounded(text, spec):
    found = list(passages([Document(id="d", text=text)], spec))
    assert all(len(p.text.split()) <= spec.words for p in found)
    for a, b in pairwise(found):
        assert len(text[b.start : a.end].split()) <= spec.overlap


def test_a_short_document_stays_whole():
    (found,) = cut("  A short one. \n")
    assert (found.id, found.text, found.source) == ("d", "A short one.", "d")


def test_parts_are_numbered():
    assert [p.id for p in cut("word " * 20, words=8, overlap=0)] == ["d#1", "d#2", "d#3"]


def test_cuts_prefer_sections_then_paragraphs_then_sentences():
    sentences = "One two three. Four five six. Seven eight nine ten eleven"
    assert cut(sentences, words=9, overlap=0)[0].text == "One two three. Four five six."
    paragraphs = "One two. Three four five\n\nsix seven. Eight nine ten eleven"
    assert cut(paragraphs, words=8, overlap=0)[0].text == "One two. Three four five"
    sections = "One two three four five\n# Six\n\nseven eight. Nine ten eleven twelve"
    assert cut(sections, words=9, overlap=0)[0].text == "One two three four five"


def test_a_section_repeats_nothing_of_the_one_before():
    text = "One two three four five six\n\n# Seven\neight nine ten eleven twelve thirteen"
    assert [p.text.split()[0] for p in cut(text, words=8, overlap=4)] == ["One", "#"]


def test_a_passage_begins_with_a_whole_sentence_of_the_one_before():
    text = "One two three four. Five six. Seven eight nine. Ten eleven twelve"
    assert cut(text, words=10, overlap=5)[1].text.startswith("Five six. Seven")


@pytest.mark.parametrize("sign", ["東", "あ", "ไ"])
def test_scripts_without_spaces_are_cut(sign):
    found = cut(sign * 1000, words=100, overlap=20)
    assert len(found) > 5
    assert all(len(p.text) <= 200 for p in found)


def test_chinese_is_cut_between_sentences():
    found = cut("我们今天去北京看长城。" * 20, words=20, overlap=0)
    assert all(p.text.endswith("。") for p in found)


@pytest.mark.parametrize("text", ["a" * 1_000_000, "word " * 200_000, "東京" * 500_000])
def test_a_megabyte_becomes_passages_of_bounded_length(text):
    started = time.process_time()
    found = cut(text)
    assert max(len(p.text) for p in found) <= 200 * 32
    assert time.process_time() - started < 30  # linear takes one second


def test_a_document_without_words_has_no_passage():
    assert cut(" \n\t") == []
