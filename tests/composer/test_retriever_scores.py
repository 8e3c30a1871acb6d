"""Retrievers are scored into outcomes, cell by cell, and measured as TREC does."""

import numpy as np
import pytest

from composer.judged import JudgedQuery, read_corpus, read_judged
from composer.retrieval_measures import NDCG, measured
from composer.retrieval_runs import Corpus, ranked
from composer.retriever_scores import sampled, score
from routers.data import RoutingDataset
from routers.testing import HashingEncoder
from tests.composer.judged_folder import write_judged

WORDS = [f"{a}{b}" for a in ("kar", "lim", "pos", "tun", "vex") for b in ("a", "en", "is", "or")]


class Counting(HashingEncoder):
    """Counts the queries that it embeds."""

    queries = 0

    def embed(self, texts, *, role):
        if role == "query":
            self.queries += len(texts)
        return super().embed(texts, role=role)


@pytest.fixture
def folder(tmp_path):
    return write_judged(tmp_path / "words", WORDS)


def test_the_measures_are_those_of_trec():
    judged = [JudgedQuery(id="q", text="?", relevant={"a": 2, "b": 1, "c": 1})]
    found = measured(judged, [{"x": 4.0, "a": 3.0, "y": 2.0, "b": 1.0}])
    gain = 2 / np.log2(3) + 1 / np.log2(5)
    ideal = 2 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found[NDCG][0] == pytest.approx(gain / ideal)
    assert found["Recall@10"][0] == found["Recall@100"][0] == pytest.approx(2 / 3)
    assert found["MRR@10"][0] == pytest.approx(1 / 2)
    assert measured(judged, [{}])[NDCG].tolist() == [0]


def test_a_query_that_is_in_the_corpus_ignores_itself(tmp_path):
    folder = write_judged(tmp_path / "own", WORDS, own_id=True)
    queries = read_judged(folder)
    lists = ranked(Corpus(read_corpus(folder)), HashingEncoder(), queries)
    assert all(query.id not in found for query, found in zip(queries, lists, strict=True))
    assert all(len(found) == 59 for found in lists)


def test_scores_are_outcomes_that_routers_read(folder, tmp_path):
    queries = read_judged(folder)
    collection = Corpus(read_corpus(folder), tmp_path / "cache")
    small, large = HashingEncoder(8), HashingEncoder(64)
    retrievers = {"small": lambda: small, "large": lambda: large}
    found = score(queries, "words", collection, retrievers, tmp_path / "scores.parquet")
    data = RoutingDataset.load(found.path)
    assert (len(data), data.experts, data.categories) == (40, ("large", "small"), ("words",))
    assert set(data.split) == {"train", "test"}
    assert found.computed == 80
    assert found.mean["large"] > found.mean["small"]
    expected = measured(queries, ranked(collection, large, queries))[NDCG]
    by_id = {f"words/{q.id}": v for q, v in zip(queries, expected, strict=True)}
    assert data.quality[:, 0] == pytest.approx([by_id[name] for name in data.ids])


def test_only_missing_cells_are_computed(folder, tmp_path):
    queries, out = read_judged(folder), tmp_path / "scores.parquet"
    collection, first, second = Corpus(read_corpus(folder)), Counting(), Counting(32)
    score(queries[:10], "words", collection, {"a": lambda: first}, out)
    again = score(queries, "words", collection, {"a": lambda: first, "b": lambda: second}, out)
    assert (again.kept, again.computed) == (10, 70)
    assert (first.queries, second.queries) == (40, 40)
    other = {"a": lambda: Counting(16)}  # another encoder under an old name
    assert score(queries, "words", collection, other, out).computed == 40
    less = Corpus({name: text for name, text in collection.passages.items() if name != "d50"})
    assert score(queries, "words", less, {"b": lambda: second}, out).computed == 40


def test_equal_ids_of_two_domains_stay_apart(folder, tmp_path):
    out, queries = tmp_path / "scores.parquet", read_judged(folder)
    for domain in ("one", "two"):
        retrievers = {"a": HashingEncoder}
        score(queries, domain, Corpus(read_corpus(folder)), retrievers, out)
    assert len(RoutingDataset.load(out)) == 80


def test_a_sample_is_the_same_every_time_and_of_every_split(folder):
    queries = read_judged(folder)
    some = sampled(queries, 5)
    assert [query.split for query in some].count("test") == 5
    assert len(some) == 10
    assert some == sampled(queries, 5)
    assert sampled(queries, 100) == list(queries)
