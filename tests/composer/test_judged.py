"""Judged queries are read from both layouts, and mistakes are named by file and line."""

import gzip

import pytest

from composer.judged import read_corpus, read_judged
from experts_registry.errors import DataError

QUERIES = """\
{"query_id": "q1", "text": "What is a cell?", "split": "train"}
{"query_id": "q2", "text": "Who was Ada Lovelace?", "split": "dev"}
{"query_id": "q3", "text": "Nobody judged this", "split": "train"}
"""
QRELS = "query_id,doc_id,relevance\nq1,d1,2\nq1,d2,0\nq2,d3,1\n"
BEIR = '{"_id": "1", "text": "What is a cell?"}\n{"_id": "2", "text": "And a virus?"}\n'
HEAD = "query-id\tcorpus-id\tscore\n"


def ours(folder, queries=QUERIES, qrels=QRELS):
    with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(queries)
    (folder / "qrels.csv").write_text(qrels)
    return folder


def beir(folder, queries=BEIR, **splits):
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels").mkdir()
    for name, rows in splits.items():
        (folder / "qrels" / f"{name}.tsv").write_text(HEAD + rows)
    return folder


def test_queries_keep_their_split_and_only_relevant_passages(tmp_path):
    first, second = read_judged(ours(tmp_path))
    assert (first.id, first.text, dict(first.relevant)) == ("q1", "What is a cell?", {"d1": 2})
    assert (first.split, second.split) == ("train", "val")


def test_a_split_is_chosen_by_any_of_its_names(tmp_path):
    ours(tmp_path)
    for name in ("val", "dev"):
        assert [query.id for query in read_judged(tmp_path, split=name)] == ["q2"]


def test_the_split_of_beir_is_the_file_that_judges_a_query(tmp_path):
    found = read_judged(beir(tmp_path, train="1\td1\t1\n", test="2\td2\t1\n2\td3\t-1\n"))
    assert [(query.id, query.split, dict(query.relevant)) for query in found] == [
        ("1", "train", {"d1": 1}),
        ("2", "test", {"d2": 1}),
    ]


def test_a_query_judged_in_two_splits_is_refused_unless_one_is_named(tmp_path):
    beir(tmp_path, train="1\td1\t1\n", test="1\td1\t1\n")
    with pytest.raises(DataError, match=r"train\.tsv: query '1' is in split 'test' too"):
        read_judged(tmp_path)
    assert [query.split for query in read_judged(tmp_path, split="train")] == ["train"]


@pytest.mark.parametrize(
    ("queries", "qrels", "message"),
    [
        (QUERIES + "{", QRELS, r"queries\.jsonl\.gz:4: is not JSON"),
        (QUERIES + QUERIES, QRELS, r"queries\.jsonl\.gz:4: query_id: 'q1' comes twice"),
        ('{"query_id": "q1"}', QRELS, r":1: text: None is not text"),
        ('{"query_id": "q1", "text": " "}', QRELS, r":1: text: is empty"),
        (QUERIES.replace("dev", "later"), QRELS, r"\.gz:2: split: 'later' is not one of train"),
        ('{"text": "a"}', QRELS, r":1: query_id or _id: None is not a name"),
        (QUERIES, QRELS + "q9,d1,1\n", r"qrels\.csv:5: query 'q9' is not in queries\.jsonl"),
        (QUERIES, QRELS + "q1,d1\n", r"qrels\.csv:5: has 2 columns, not 3"),
        (QUERIES, QRELS + "q1,d1,high\n", r"qrels\.csv:5: 'high' is not a grade"),
        (QUERIES, "q1,d1,0\n", "holds no query with a relevant passage"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path, queries, qrels, message):
    with pytest.raises(DataError, match=message):
        read_judged(ours(tmp_path, queries, qrels))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no queries\.jsonl"):
        read_judged(tmp_path)
    (tmp_path / "queries.jsonl").write_text(BEIR)
    with pytest.raises(DataError, match=r"neither qrels\.csv nor qrels/SPLIT\.tsv"):
        read_judged(tmp_path)


def test_passages_are_title_and_text(tmp_path):
    rows = '{"doc_id": "d1", "title": "Cell", "text": "A unit."}\n{"_id": "d2", "text": "Other."}\n'
    (tmp_path / "corpus.jsonl").write_text(rows)
    assert read_corpus(tmp_path) == {"d1": "Cell A unit.", "d2": "Other."}
    (tmp_path / "corpus.jsonl").write_text(rows + rows)
    with pytest.raises(DataError, match=r"corpus\.jsonl:3: doc_id: 'd1' comes twice"):
        read_corpus(tmp_path)
