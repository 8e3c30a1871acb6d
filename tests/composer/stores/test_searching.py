import subprocess
import sys
import threading

import numpy as np
import pytest

from composer.opened import Opened
from composer.stores.searching import WORDS, Searching
from experts_registry.errors import (
    ArtefactError,
    OptionError,
    PromptError,
    UnknownNameError,
)
from tests.composer.stores.conftest import FOOD, LAW, YAML
from tests.composer.stores.counting import EMBEDDED

TEXTS = {
    "l1": "The court of appeal dismissed the claim of the tenant",
    "l2": "A contract without consideration is void before every judge",
    "f1": "Boil the pasta in water with salt and serve it with butter",
    "f2": "Bread is baked in the oven for an hour until it is brown",
    "x1": "The zyzzyva is a weevil of the tropics",
}


@pytest.fixture
def searching(registry, build):
    """Return what builds the stores of a registry, and searches them."""
    opened = []

    def of(text=YAML, texts=TEXTS, is_built=True):
        loaded = registry(text)
        if is_built:
            build(loaded, texts)
        opened.append(Opened(loaded))
        return Searching(loaded, opened[-1])

    yield of
    for each in opened:
        each.close()


def ids(found):
    return [passage.id for passage in found.passages]


def test_the_nearest_passages_are_found_with_their_cosines(searching, opened):
    found = searching().search("texts", "boil pasta", 2, retriever="food")
    embedder = opened.embedder("food")
    x = embedder.embed(["boil pasta"], role="query")[0]
    cosines = embedder.embed(list(TEXTS.values()), role="passage") @ x
    order = np.argsort(-cosines)[:2]
    assert ids(found) == [list(TEXTS)[i] for i in order]
    assert [p.score for p in found.passages] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert found.similarity == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert found.store == "texts"
    assert {(p.store, p.retrievers) for p in found.passages} == {("texts", ("food",))}
    assert found.passages[0].text == TEXTS["f1"]
    assert found.decision.experts == ("food",)
    assert found.seconds > 0


def test_the_pilot_router_decides_who_searches(searching, train):
    train()
    search = searching().search
    assert search("texts", LAW[0], 1).decision.experts == ("law",)
    found = search("texts", FOOD[0], 1)
    assert found.decision.experts == found.passages[0].retrievers == ("food",)


def test_lists_of_several_retrievers_are_fused_by_rank(searching, train):
    train()
    query = "the claim of a judge on bread"
    both = searching(YAML.replace("router: pilots", "router: pilots, fuse: 2"))
    lists = [ids(both.search("texts", query, 5, retriever=name)) for name in ("law", "food")]
    scores = {name: sum(1 / (61 + one.index(name)) for one in lists) for name in TEXTS}
    found = both.search("texts", query, 5)
    assert sorted(found.decision.experts) == ["food", "law"]
    assert {p.id: p.score for p in found.passages} == pytest.approx(scores)
    assert [p.score for p in found.passages] == sorted(scores.values(), reverse=True)
    assert sorted(found.passages[0].retrievers) == ["food", "law"]


def test_words_are_searched_too_where_the_store_says_so(searching):
    hybrid = searching(YAML.replace("router: pilots", "lexical: true"))
    found = hybrid.search("texts", "zyzzyva", 5)
    assert ids(found)[0] == "x1"
    assert found.passages[0].retrievers == ("law", WORDS)
    assert WORDS not in found.passages[1].retrievers
    assert len(found.similarity) == 5


def test_a_reranker_orders_what_was_found(searching):
    text = YAML.replace("router: pilots", "reranker: longest, candidates: 3").replace(
        "stores:\n",
        '  - {name: longest, kind: reranker, model: x, backend: "tests.composer.stores.counting:'
        'LongestReranker"}\nstores:\n',
    )
    search = searching(text).search
    found = search("texts", "the court of appeal", 2)
    assert [p.score for p in found.passages] == sorted(
        (float(len(p.text)) for p in found.passages), reverse=True
    )
    nearest = searching(is_built=False).search("texts", "the court of appeal", 3)
    longest = sorted(nearest.passages, key=lambda p: -len(p.text))[:2]
    assert ids(found) == [p.id for p in longest]


def test_a_query_is_embedded_once_to_route_and_to_search(searching, train):
    train("law")
    search = searching().search
    EMBEDDED.clear()
    assert search("texts", LAW[1], 2).decision.experts == ("law",)
    assert dict(EMBEDDED) == {("law", LAW[1]): 1}
    assert search("texts", FOOD[1], 2).decision.experts == ("food",)
    assert EMBEDDED[("law", FOOD[1])] == EMBEDDED[("food", FOOD[1])] == 1


@pytest.mark.parametrize("query", ["word " * 200_000, "\ud800 half", "\0", "東京", "x" * 1_000_000])
def test_any_query_is_searched(searching, train, query):
    train()
    hybrid = searching(YAML.replace("router: pilots", "router: pilots, lexical: true, fuse: 2"))
    assert len(hybrid.search("texts", query, 3).passages) == 3


@pytest.mark.parametrize("query", ["", " \n\t"])
def test_an_empty_query_is_an_error(searching, query):
    with pytest.raises(PromptError, match="empty"):
        searching().search("texts", query, 3)


@pytest.mark.parametrize("k", [0, -1, 1001, True, 2.5])
def test_k_out_of_its_range_is_an_error(searching, k):
    with pytest.raises(OptionError, match="k: "):
        searching().search("texts", "query", k)


def test_more_than_there_are_gives_all(searching):
    assert sorted(ids(searching().search("texts", "query", 1000))) == sorted(TEXTS)


def test_unknown_names_are_errors(searching):
    with pytest.raises(UnknownNameError, match=r"'text'.*did you mean 'texts'"):
        searching().search("text", "query", 3)
    with pytest.raises(UnknownNameError, match="'food'"):
        searching().search("texts", "query", 3, retriever="fod")


def test_a_store_that_is_not_built_names_the_command(searching):
    with pytest.raises(ArtefactError, match="store build texts"):
        searching(is_built=False).search("texts", "query", 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("retrievers: [law]", "retrievers: [law, food]"),
        ("retrievers: [law, food]", "retrievers: [law, food], lexical: true"),
    ],
)
def test_what_the_store_was_not_built_for_names_the_command(searching, before, after):
    now = "retrievers: [off, law, food]"
    searching(YAML.replace(now, before))
    search = searching(YAML.replace(now, after), is_built=False).search
    name = "law" if "lexical" in after else "food"
    with pytest.raises(ArtefactError, match="store build texts"):
        search("texts", "query", 3, retriever=name)


def test_a_rebuilt_store_is_seen_while_searches_go_on(searching, registry, build):
    search = searching().search
    before = search("texts", "zyzzyva weevil", 1)
    stop, failures, seen = threading.Event(), [], set()

    def ask():
        while not stop.is_set():
            try:
                seen.add(search("texts", "zyzzyva weevil", 1).passages[0].text)
            except BaseException as error:  # noqa: BLE001 - shown below
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    newest = ""
    for edition in range(4):
        newest = f"The zyzzyva is a weevil of edition {edition}"
        build(registry(), TEXTS | {"x1": newest})
        assert search("texts", "zyzzyva weevil", 1).passages[0].text == newest
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen) > 1
    assert before.passages[0].text == TEXTS["x1"]


def test_a_store_is_built_while_it_is_missing(searching, registry, build):
    later = searching(is_built=False)
    with pytest.raises(ArtefactError):
        later.search("texts", "query", 1)
    build(registry(), TEXTS)
    assert later.search("texts", "zyzzyva", 1).passages[0].id == "x1"


CUT = """
import sys
from pathlib import Path

from composer.opened import Opened
from composer.stores.searching import Searching
from experts_registry.errors import ArtefactError
from experts_registry.registry import Registry

file = Registry.load(Path(sys.argv[1]))
searching = Searching(file, Opened(file))
searching.search("texts", "bread", 1)
for path in file.store_folder("texts").glob("generations/*/*"):
    if path.is_file():
        path.open("r+b").truncate(8)
try:
    searching.search("texts", "bread", 1)
except ArtefactError as error:
    print(error)
"""


def test_a_store_that_is_cut_off_while_it_is_open_is_an_error_and_not_the_end(registry, build):
    many = {str(i): f"bread {i} and butter {i * i}" for i in range(2000)}  # more than a page
    loaded = registry(YAML)
    build(loaded, many)
    run = [sys.executable, "-c", CUT, str(loaded.path)]
    ended = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "store build texts" in ended.stdout
