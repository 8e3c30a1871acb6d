import time

import numpy as np
import pytest

from experts_registry.errors import DataError, OptionError
from routers.data import RoutingDataset
from routers.splits import find_leaks, folds, split
from routers.testing import synthetic_outcomes

STORY = "A farmer has some hens and sells the eggs on the market every Saturday before noon"


def table(queries, **more):
    return RoutingDataset(
        queries=tuple(queries), experts=("a",), quality=np.ones((len(queries), 1)), **more
    )


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("What is 2 + 2?", "what is 2+2", "exact"),
        ("Name the capital of France.", "NAME the  capital of France!", "exact"),
        ("\uff46ull width letters", "full width letters", "exact"),
        ("你好吗", "你好吗\uff1f", "exact"),
        (STORY, f"{STORY}, please", "near"),
        (STORY, STORY.replace("some hens", "many hens"), "near"),
    ],
)
def test_what_differs_only_in_form_is_a_leak(train, test, kind):
    (leak,) = find_leaks(["something else", train], [test])
    assert (leak.train, leak.test, leak.kind) == (1, 0, kind)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("What is 12 + 7?", "What is 12 - 7?"),
        (f"{STORY}. 12 eggs", f"{STORY}. 13 eggs"),
        ("Hi", "Ho"),
        ("Capital of France?", "Capital of Greece?"),
        ("???", "!!!"),
    ],
)
def test_another_question_is_no_leak(train, test):
    assert find_leaks([train], [test]) == []


def test_a_template_shared_by_many_queries_is_not_a_leak():
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lom", "rit", "sun")]
    queries = [f"{STORY}. Now translate the single word {word} into French." for word in words]
    assert find_leaks(queries[:40], queries[40:]) == []


def test_no_query_and_nothing_like_it_is_on_both_sides():
    base = synthetic_outcomes(1, n=200, categories=4)
    queries = [*base.queries, *(f"{q.upper()}!" for q in base.queries[:60])]
    data = table(queries, category=(*base.category, *base.category[:60]))
    parts = split(data)
    assert find_leaks(parts.train.queries, parts.test.queries) == []
    assert parts.report.alike == 120
    assert set(parts.train.ids) | set(parts.test.ids) == set(data.ids)
    assert not set(parts.train.ids) & set(parts.test.ids)


def test_every_category_is_split_in_the_same_proportion():
    data = synthetic_outcomes(2, n=400, categories=4)
    parts = split(data, test=0.25)
    for name in data.categories:
        whole, held = data.category.count(name), parts.test.category.count(name)
        assert abs(held - whole / 4) <= 1


def test_the_same_seed_gives_the_same_split():
    data = synthetic_outcomes(3, n=100)
    assert split(data, seed=1).test.ids == split(data, seed=1).test.ids
    assert split(data, seed=1).test.ids != split(data, seed=2).test.ids


def test_a_given_split_is_kept_and_its_leaks_are_dropped():
    data = table(["one apple", "two pears", "One apple!"], split=("train", "test", "test"))
    parts = split(data)
    assert (parts.train.ids, parts.test.ids) == (("0",), ("1",))
    assert (parts.report.source, parts.report.dropped) == ("column", ("2",))


def test_a_given_split_of_nothing_but_leaks_is_an_error():
    with pytest.raises(DataError, match="every test query is also a training query"):
        split(table(["one", "One"], split=("train", "test")))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(OptionError, match="is not between 0 and 1"):
        split(synthetic_outcomes(n=20), test=share)


def test_too_few_distinct_queries_are_an_error():
    with pytest.raises(DataError, match="2 queries, 1 of them distinct, are too few"):
        split(table(["same", "Same"]))


def test_folds_keep_queries_alike_together():
    queries = [q for query in synthetic_outcomes(4, n=60).queries for q in (query, query.upper())]
    fold = folds(table(queries), 5)
    assert (fold[::2] == fold[1::2]).all()
    assert np.bincount(fold).tolist() == [24] * 5


def test_ten_thousand_queries_take_seconds():
    queries = synthetic_outcomes(5, n=10_000, categories=20).queries
    began = time.process_time()
    find_leaks(queries[:8000], queries[8000:])
    assert time.process_time() - began < 20
