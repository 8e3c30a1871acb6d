import pytest

from composer.citations import Citation, citations


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("Noon [1].", [(1, "[1]")]),
        ("Noon [1, 3].", [(1, "[1, 3]"), (3, "[1, 3]")]),
        ("Noon [1][2].", [(1, "[1]"), (2, "[2]")]),
        ("Noon [2], and again [2].", [(2, "[2]"), (2, "[2]")]),
        ("Noon [1, 1].", [(1, "[1, 1]")]),
        ("Noon [4], [0], [12345], [-1], [x], [], [1.5].", []),
        ("Noon [3, 9].", [(3, "[3, 9]")]),
        ("Run `a[1]`, or\n```\nb[2]\n```\nas said [3].", [(3, "[3]")]),
        ("An open ```block [1]", []),
        ("Grüße 🎉 [2]", [(2, "[2]")]),
    ],
)
def test_numbers_in_brackets_cite_the_passages_that_there_are(text, cited):
    found = citations(text, 3)
    assert [(c.passage, text[c.start : c.end]) for c in found] == cited


def test_without_passages_nothing_is_cited():
    assert citations("Noon [1].", 0) == ()


def test_long_answers_are_read_in_little_time():
    text = "[1, 2" * 100_000 + "`" * 60_000 + "[1]"
    assert Citation(passage=1, start=len(text) - 3, end=len(text)) in citations(text, 1)
