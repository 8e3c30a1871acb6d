import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from composer.answers import choice_of, code_of, last_number, normal
from composer.graders import F1, Choice, Code, Contains, Exact, Numeric, Regex, grade, read_grader
from experts_registry.errors import DataError

WORDS = ["Paris", "is", "the", "big", "city", "of", "lights"]
words = st.text(min_size=1, max_size=40).filter(str.strip)


@given(words)
def test_exact_accepts_its_own_answer(answer):
    assert grade(Exact(answers=(answer,)), answer) == 1


@given(st.lists(st.sampled_from(WORDS), min_size=1))
def test_exact_ignores_case_and_spacing(parts):
    grader = Exact(answers=(" ".join(parts),))
    assert grade(grader, "  " + "\n ".join(parts).upper() + "\t") == 1
    assert grade(grader, " ".join(parts) + " indeed") == 0


@given(st.floats(-1e9, 1e9).map(lambda x: round(x, 3)))
def test_numeric_accepts_its_own_answer_as_people_write_it(number):
    assert grade(Numeric(answer=number, tolerance=1e-3), f"It is ${number:,.3f}.") == 1


@given(words, words)
def test_f1_is_symmetric_and_bounded(a, b):
    assert grade(F1(answers=(a,)), b) == grade(F1(answers=(b,)), a)
    assert 0 <= grade(F1(answers=(a,)), b) <= 1


@given(st.text())
def test_every_pure_grader_takes_every_text(response):
    graders = [
        Exact(answers=("x",)),
        Numeric(answer=1),
        Contains(answers=("x",)),
        Choice(answer="A"),
        F1(answers=("x",)),
    ]
    assert all(0 <= grade(grader, response) <= 1 for grader in graders)


@given(words, words)
@settings(max_examples=50)
def test_contains_finds_an_answer_between_other_words(answer, other):
    assume(normal(answer))
    assert grade(Contains(answers=(answer,)), f"{other} | {answer} | {other}") == 1


def test_an_empty_response_is_wrong_even_where_normalising_empties_the_answer():
    assert grade(Exact(answers=("The",)), "") == 0
    assert grade(Exact(answers=("A",)), "the") == 0
    assert grade(Exact(answers=("?",)), "!") == 0


@pytest.mark.parametrize(
    ("answer", "response", "quality"),
    [
        ("U.S.A.", "usa", 1),
        ("The Beatles", "beatles!", 1),
        ("3.5", "35", 0),
        ("-5", "5", 0),
        ("1,000", "1000", 1),
        ("C++", "c", 0),
        ("C#", "C", 0),
        ("Straße", "STRASSE", 1),
        ("ﬁne", "fine", 1),
        ("東京", "東京。", 1),
    ],
)
def test_exact_drops_marks_but_not_meaning(answer, response, quality):
    assert grade(Exact(answers=(answer,)), response) == quality


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The total is 1,234.50 dollars.", 1234.5),
        ("#### 42\nThat took 3 steps.", 42),
        (r"so \boxed{\frac{3}{4}} of 5", 0.75),
        ("-$5", -5),
        ("a range of 3-5", 5),
        ("x = \u22127", -7),
        ("1.5e3", 1500),
        (r"$3 \times 10^{8}$ m/s", 3e8),
        ("3\u00d710\u2078 m/s", 3e8),
        ("5 m\u00b2", 5),
        ("答案是-42。", -42),
        ("\u0664\u0662", 42),
        ("1\u202f234 \u20ac", 1234),
        ("1.234,56", 1234.56),
        ("3,5 Liter", 3.5),
        ("0,125", 0.125),
        ("1,23,456", 123456),
        ("on 10/12/2024", 2024),
        ("3/4", 0.75),
        ("50%", 50),
        ("3 atoms of CO2", 3),
        ("42km", 42),
        ("1'000", 1000),
        ("10 - 5", 5),
        ("**-3**", -3),
        ("none", None),
    ],
)
def test_the_last_number_is_read_as_people_write_it(text, number):
    assert last_number(text) == number


def test_numeric_has_an_absolute_tolerance_and_a_zero_divisor_is_wrong():
    assert grade(Numeric(answer=3.14, tolerance=0.01), "about 3.1416") == 1
    assert grade(Numeric(answer=3.14), "about 3.1416") == 0
    assert grade(Numeric(answer=0), "1/0") == 0


@pytest.mark.parametrize(
    ("answer", "response", "quality"),
    [
        ("paris", "The capital is **Paris**.", 1),
        ("paris", "Parisian cafés", 0),
        ("北京", "首都是北京市", 1),
        ("서울", "서울입니다", 1),
        ("दिल्ली", "राजधानी दिल्ली है", 1),
        ("5", "it is 3.5", 0),
        ("500", "it costs 1,500", 0),
        ("5", "it is 5.", 1),
        ("C++", "use c++ now", 1),
        ("it's", "It\u2019s fine", 1),
    ],
)
def test_contains_looks_for_whole_words_in_any_script(answer, response, quality):
    assert grade(Contains(answers=(answer,)), response) == quality


def test_contains_asks_for_any_answer_or_for_all():
    assert grade(Contains(answers=("red", "blue")), "blue") == 1
    assert grade(Contains(answers=("red", "blue"), all=True), "blue") == 0
    assert grade(Contains(answers=("red", "blue"), all=True), "blue and red") == 1


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("b", "B"),
        ("**B.** because", "B"),
        ("The answer is (C).", "C"),
        ("the answer is b.", "B"),
        ("the answer is a bit odd: C", "C"),
        ("A dog barks, so B.", "B"),
        ("A dog", None),
        ("Cevap: (İ)", None),
        ("A good question. It is hard to say", None),
        ("A because it is red", "A"),
        ("D is not right, the correct one is B", "B"),
        ("A is correct", "A"),
        ("a) the first", "A"),
        ("Option A is wrong; the answer is B", "B"),
        (r"thus \boxed{D}", "D"),
        ("La respuesta es C", "C"),
        ("答案是B", "B"),
        ("BAD", None),
        ("none of them", None),
    ],
)
def test_a_choice_is_read_from_the_ways_models_state_it(response, label):
    assert choice_of(response, "ABCD") == label


def test_a_choice_may_be_among_words():
    assert grade(Choice(answer="no", choices=("yes", "no")), "I would say No, never.") == 1


def test_f1_matches_a_worked_example():
    # 3 words are shared, of 4 given (the article does not count) and 5 wanted.
    grader = F1(answers=("red fox over lazy dog",))
    assert grade(grader, "The red fox jumps over") == pytest.approx(2 * 3 / (4 + 5))
    assert grade(F1(answers=("cat", "red fox jumps over")), "The red fox jumps over") == 1
    assert grade(F1(answers=("北京市",)), "北京") == pytest.approx(2 * 2 / (2 + 3))


def test_regex_searches_with_flags():
    assert grade(Regex(pattern=r"^select\b", flags="im"), "So:\nSELECT 1") == 1
    assert grade(Regex(pattern=r"^select\b"), "So:\nSELECT 1") == 0
    assert grade(Regex(pattern="(?i)x", flags="m"), "X") == 1


def test_a_regex_that_backtracks_for_ever_is_an_error_and_not_a_wrong_answer():
    with pytest.raises(DataError, match=r"grader.pattern: .* took longer than"):
        grade(Regex(pattern=r"(a+)+$"), "a" * 60 + "b")


FENCED = "Here you are:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds."


def test_code_passes_exactly_when_its_tests_do():
    assert grade(Code(tests="assert add(1, 2) == 3"), FENCED) == 1
    assert grade(Code(tests="assert add(1, 2) == 4"), FENCED) == 0
    assert grade(Code(tests="assert add(1, 2) == 3"), "def add(a, b): return a + b") == 1
    assert grade(Code(tests="assert add(1, 2) == 3"), "I cannot do that.") == 0


@pytest.mark.parametrize("early_exit", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_code_that_exits_before_its_tests_fails(early_exit):
    assert grade(Code(tests="assert False"), f"```\n{early_exit}\n```") == 0


def test_the_block_that_defines_the_entry_is_taken():
    text = "```bash\npip install x\n```\n```py\nprint(1)\n```\n```\ndef f(): ...\n```"
    assert code_of(text) == "print(1)\n"
    assert code_of(text, "f") == "def f(): ...\n"
    assert code_of("```python\ndef g():\n  pass", "g") == "def g():\n  pass"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "numerc"}, "grader.type: 'numerc' is not one of .*; did you mean 'numeric'?"),
        ({"type": ["exact"]}, "grader.type: "),
        ({}, "grader.type: None is not one of exact, numeric"),
        ("exact", "grader: 'exact' is not an object"),
        ({"type": "numeric", "answr": 3}, "grader.answr: .* did you mean 'answer'?"),
        ({"type": "numeric"}, "grader.answer: is missing; this grader has type, answer"),
        ({"type": "numeric", "answer": True}, "grader.answer: True is not a number"),
        ({"type": "numeric", "answer": 1, "tolerance": -1}, "grader.tolerance: "),
        ({"type": "exact", "answers": "x"}, "grader.answers: Input should be a valid list"),
        ({"type": "exact", "answers": []}, "grader.answers: "),
        ({"type": "exact", "answers": [" "]}, "grader.answers.0: "),
        ({"type": "choice", "answer": "E"}, "'E' is not one of the choices A, B, C, D"),
        ({"type": "regex", "pattern": "(["}, "is not a regular expression: unterminated"),
        ({"type": "regex", "pattern": "a", "flags": "iq"}, "grader.flags: 'q' are not flags"),
        ({"type": "code", "tests": "assert ("}, "grader.tests: are not Python"),
    ],
)
def test_a_wrong_grader_is_refused_with_what_would_be_right(value, message):
    with pytest.raises(DataError, match=message):
        read_grader(value)


def test_numbers_and_texts_stand_for_each_other_in_a_file():
    assert read_grader({"type": "exact", "answers": [42]}) == Exact(answers=("42",))
    assert read_grader({"type": "numeric", "answer": "1,234"}) == Numeric(answer=1234)


def test_reading_an_answer_takes_linear_time():
    for text in ("\\boxed{" * 50_000, " " * 300_000 + "x", "1/" * 100_000, "answer " * 30_000):
        assert last_number(text) is None or re.search(r"\d", text)
        choice_of(text, "ABCD")
