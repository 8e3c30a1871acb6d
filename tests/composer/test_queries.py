import gzip

import pytest

from composer.graders import Contains, Exact, Numeric
from composer.queries import read_queries
from experts_registry.errors import DataError

GOOD = '{"id": "q1", "query": "What is 19 + 23?", "answer": 42, "grader": "numeric"}'


def read(tmp_path, text, name="queries.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_queries(path)


def test_a_line_becomes_a_query(tmp_path):
    line = (
        '{"id": "a", "category": "math", "query": "Which?", "max_tokens": 9,'
        ' "grader": {"type": "exact", "answers": ["x"]}}'
    )
    (query,) = read(tmp_path, line)
    assert (query.id, query.category) == ("a", "math")
    assert (query.prompt.query, query.prompt.sampling.max_tokens) == ("Which?", 9)
    assert query.grader == Exact(answers=("x",))


def test_the_short_form_gives_answer_and_type(tmp_path):
    text = GOOD + '\n{"query": "Two?", "answer": ["a", "b"], "grader": "contains"}\n'
    first, second = read(tmp_path, text)
    assert first.grader == Numeric(answer=42)
    assert second.grader == Contains(answers=("a", "b"))


def test_a_conversation_may_stand_for_the_query(tmp_path):
    turns = '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]'
    (query,) = read(tmp_path, f'{{"messages": {turns}, "answer": "hi", "grader": "exact"}}')
    assert query.prompt.query == "Hi?"
    assert query.prompt.messages[0].content == "Be brief."


def test_an_id_that_is_left_out_depends_on_the_text_alone(tmp_path):
    line = '{"query": "Hi?", "answer": "%s", "grader": "exact"}'
    assert read(tmp_path, line % "a")[0].id == read(tmp_path, line % "b")[0].id


def test_gzip_blank_lines_and_a_byte_order_mark_are_read(tmp_path):
    text = b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n"
    assert read(tmp_path, text) == read(tmp_path, gzip.compress(text), "queries.jsonl.gz")


G = '"grader": {"type": "exact", "answers": ["x"]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"queries.jsonl: holds no query; write one JSON object a line"),
        ("[1]", r"queries.jsonl:1: is a JSON list, not an object"),
        (GOOD + "\n{", r"queries.jsonl:2: is not JSON \("),
        (GOOD + "\n\n" + GOOD, r"queries.jsonl:3: id: 'q1' is on line 1 too"),
        ('{"query": " ", ' + G + "}", r":1: query: the last user message is empty"),
        ('{"query": 7, ' + G + "}", r":1: query: 7 is not text"),
        ("{" + G + "}", r":1: query: give either 'query' .* or 'messages'"),
        ('{"messages": "hi", ' + G + "}", r":1: messages: is not a list"),
        ('{"qurey": "a", ' + G + "}", r":1: qurey: is not one of .*; did you mean 'query'?"),
        ('{"query": "a", "query": "b", ' + G + "}", r":1: query: duplicate key"),
        ('{"query": "a"}', r":1: grader: is missing; add"),
        (
            '{"query": "a", "answer": 1, "grader": "numerc"}',
            r":1: grader.type: 'numerc' .* 'numeric'",
        ),
        ('{"query": "a", "answer": 1, ' + G + "}", r":1: answer: stands beside a whole grader"),
        ('{"query": "a", "answer": NaN, "grader": "numeric"}', r":1: holds NaN"),
        ('{"query": "a", "max_tokens": -1, ' + G + "}", r":1: max_tokens: -1 is below 0"),
        ('{"query": "a", "max_tokens": "9", ' + G + "}", r":1: max_tokens: '9' is not a whole"),
        ('{"query": "a", "id": "", ' + G + "}", r":1: id: '' is not a name"),
        ('{"query": "a", "category": 3, ' + G + "}", r":1: category: 3 is not text"),
        ('{"query": "\\ud800", ' + G + "}", r":1: holds half a surrogate pair"),
        (b'{"query": "\xff"}', r":1: is not UTF-8"),
        ("[" * 100_000, r":1: is nested too deeply"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_all_mistakes_are_listed_at_once(tmp_path):
    with pytest.raises(DataError, match=r"(?s):1: .*:2: "):
        read(tmp_path, '{"query": "a"}\n{"query": "b"}')


def test_a_missing_file_and_a_cut_off_gzip_file_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        read_queries(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, gzip.compress(GOOD.encode())[:-9], "queries.jsonl.gz")
