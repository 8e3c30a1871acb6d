"""The acceptance tests of RouterRetriever's pilots, on planted domains."""

from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import DataError, OptionError, UnknownNameError
from routers.base import load_router
from routers.data import RoutingDataset
from routers.pilot import PilotRouter
from routers.pilot_library import Building, PilotLibrary, winners
from routers.pilot_reading import fall_back, margins, similarities
from routers.testing import HashingEncoder, check_router, synthetic_outcomes

D, DOCS, QUERIES = 32, 60, 60
NAMES = ("general", "rot-0", "rot-1", "rot-2")


class Planted:
    """An encoder that looks texts up."""

    digest = "planted"

    def __init__(self):
        self.vectors = {}

    def embed(self, texts, *, role):
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    def close(self):
        pass


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def gain(queries, docs, truth):
    """nDCG@10 with one relevant passage each."""
    scores = unit(queries) @ docs.T
    rank = (scores > scores[np.arange(len(truth)), truth][:, None]).sum(axis=1) + 1
    return np.where(rank <= 10, 1 / np.log2(rank + 1), 0)


@pytest.fixture(scope="module")
def planted():
    """Three domains around three centres; each one's queries are its passages, turned."""
    rng, encoder = np.random.default_rng(0), Planted()
    turn = [np.linalg.qr(np.eye(D) + 0.25 * rng.normal(size=(D, D)))[0] for _ in range(3)]
    rows = []
    for domain in range(3):
        docs = unit(6 * np.eye(D)[domain] + rng.normal(size=(DOCS, D)))
        truth = rng.integers(DOCS, size=QUERIES)
        queries = unit(docs[truth] @ turn[domain].T + 0.05 * rng.normal(size=(QUERIES, D)))
        quality = [gain(queries, docs, truth)]
        quality += [gain(queries @ each, docs, truth) for each in turn]
        for i in range(QUERIES):
            text = f"query {i} of domain {domain}"
            encoder.vectors[text] = queries[i]
            rows.append((text, f"domain-{domain}", [q[i] for q in quality], i % 3 == 0))
    data = RoutingDataset(
        queries=tuple(r[0] for r in rows),
        experts=NAMES,
        quality=np.array([r[2] for r in rows]),
        category=tuple(r[1] for r in rows),
        ids=tuple(f"id-{i}" for i in range(len(rows))),
        split=tuple("test" if r[3] else "train" for r in rows),
    )
    return encoder, data


def test_each_domain_finds_its_expert(planted):
    encoder, data = planted
    router = PilotRouter(encoder=encoder, general="general", fallback=False).fit(data)
    test = data.select([i for i, split in enumerate(data.split) if split == "test"])
    choice = router.predict(test.queries).utility.argmax(axis=1)
    own = np.array([1 + int(name[-1]) for name in test.category])
    assert (choice == own).mean() > 0.95
    reached = test.quality[np.arange(len(test)), choice].mean()
    oracle = test.quality[np.arange(len(test)), own].mean()
    assert test.quality[:, 0].mean() < reached <= oracle


def test_ids_do_not_decide(planted):
    encoder, data = planted
    router = PilotRouter(encoder=encoder).fit(data)
    turned = PilotRouter(encoder=encoder).fit(replace(data, ids=data.ids[::-1]))
    assert np.array_equal(
        router.predict(data.queries).utility, turned.predict(data.queries).utility
    )


def test_the_mean_of_the_pilots_decides_and_not_the_nearest():
    x = np.eye(3, dtype=np.float32)
    library = PilotLibrary(
        vector=np.array([[0.9, 0, 0], [-0.9, 0, 0], [0.5, 0, 0], [0.5, 0, 0]], np.float32),
        expert=np.array([0, 0, 1, 1]),
        weight=np.array([1.0, 9, 1, 1]),
        group=np.zeros(4, dtype=int),
        margin=np.zeros(4),
    )
    mean = similarities(x[:1], library, 2, "mean")
    assert mean == pytest.approx(np.array([[0.0, 0.5]]), abs=1e-6)
    assert similarities(x[:1], library, 2, "max").argmax() == 0
    assert similarities(x[:1], library, 2, "weighted_mean")[0, 0] == pytest.approx(-0.72)
    assert 0 < similarities(x[:1], library, 2, "softmax_mean")[0, 0] <= 0.9


def test_a_retriever_that_goes_and_comes_back_restores_every_bit(planted, tmp_path):
    encoder, data = planted
    router = PilotRouter(encoder=encoder).fit(data)
    less = router.without("rot-1")
    assert "rot-1" not in less.experts_
    before, after = router.library, less.library
    kept = before.expert != NAMES.index("rot-1")
    assert np.array_equal(before.vector[kept], after.vector)
    assert "rot-1" not in less.route(data.queries[-1], k=4).experts
    less.save(tmp_path / "less")
    loaded = load_router(tmp_path / "less", encoder=encoder)
    again = loaded.adopt(data.only(["rot-1"]))
    assert again.experts_ == router.experts_
    assert again.state_.keys() == router.state_.keys()
    for name, array in router.state_.items():
        assert np.array_equal(array, again.state_[name], equal_nan=True), name


def test_a_domain_is_added_without_touching_a_vector(planted):
    encoder, data = planted
    labels = np.array(data.category)
    old = data.select(labels != "domain-2").without("rot-2")
    new = data.select(labels == "domain-2")
    router = PilotRouter(encoder=encoder).fit(old)
    more = router.adopt(new)
    assert more.experts_ == ("general", "rot-0", "rot-1", "rot-2")
    size = len(router.library.vector)
    assert len(more.library.vector) > size
    assert np.array_equal(more.library.vector[:size], router.library.vector)
    test = new.select([i for i, split in enumerate(new.split) if split == "test"])
    chosen = more.predict(test.queries).utility.argmax(axis=1)
    assert (chosen == 3).mean() > 0.9
    assert router.experts_ == ("general", "rot-0", "rot-1")  # the old one is as it was


def test_no_test_query_is_in_the_score_matrix(planted):
    encoder, data = planted
    router = PilotRouter(encoder=encoder).fit(data)
    test = {name for name, split in zip(data.ids, data.split, strict=True) if split == "test"}
    assert not test & set(router.matrix.ids)
    assert len(router.matrix.ids) == len(data) - len(test)
    with pytest.raises(DataError, match="every query is of split test"):
        PilotRouter(encoder=encoder).fit(replace(data, split=("test",) * len(data)))


def test_where_all_tie_nobody_gets_a_pilot(planted):
    encoder, data = planted
    quality = np.where(np.array(data.category)[:, None] == "domain-1", 1.0, data.quality)
    router = PilotRouter(encoder=encoder).fit(replace(data, quality=quality))
    groups = set(router.library.group.tolist())
    assert groups == {0, 2}


def test_winners_share_a_query_and_get_nothing_where_all_tie():
    quality = np.array([[1, 1, 0], [0.5, 0.5, 0.5], [0, np.nan, 1], [np.nan, 0.3, np.nan]])
    assert winners(quality) == pytest.approx(
        np.array([[0.5, 0.5, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    )
    assert winners(quality, first_wins=True)[1].tolist() == [1, 0, 0]


def test_small_groups_get_no_pilot_but_in_the_paper():
    x = np.eye(12, dtype=np.float32)
    quality = np.tile([1.0, 0.0], (12, 1))
    quality[:2] = [0, 1]
    group = np.zeros(12, dtype=int)
    few = PilotLibrary.of(x, quality, group, Building(general=0, rho=0.0))
    assert few.expert.tolist() == [0]
    every = PilotLibrary.of(x, quality, group, Building(general=0, rho=0.0, first_wins=True))
    assert every.expert.tolist() == [0, 1]
    assert every.weight.tolist() == [10, 2]
    assert every.vector[1, :2] == pytest.approx(0.5)
    assert every.margin.tolist() == [1, 1]


def test_in_doubt_the_general_retriever_comes_first():
    similarity = np.array([[0.5, 0.49, 0.1], [0.5, 0.1, 0.2]])
    assert margins(similarity) == pytest.approx(np.array([0.01, 0.3]))
    assert fall_back(similarity, 2, 0.05).argmax(axis=1).tolist() == [2, 0]
    assert fall_back(similarity, 2, 0.0).argmax(axis=1).tolist() == [0, 0]


def test_expected_quality_is_that_of_the_domain(planted):
    encoder, data = planted
    router = PilotRouter(encoder=encoder).fit(data)
    test = data.select([i for i, split in enumerate(data.split) if split == "test"])
    found = router.predict(test.queries)
    for domain in range(3):
        rows = np.array(test.category) == f"domain-{domain}"
        off = np.abs(found.quality[rows] - test.quality[rows].mean(axis=0))
        sampling = test.quality[rows].std(axis=0) / rows.sum() ** 0.5
        assert (off < 3 * np.hypot(found.error[rows], sampling) + 0.01).mean() > 0.9


def test_the_details_say_what_decided(planted):
    encoder, data = planted
    router = PilotRouter(encoder=encoder, rank="similarity", fallback=False).fit(data)
    details = router.route(data.queries[0]).details
    assert sum(details["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert details["margin"] >= 0
    assert 0 <= details["entropy"] <= np.log(4) + 1e-6
    assert details["fallback"] is None
    decision = PilotRouter(encoder=encoder).fit(data).route(data.queries[0])
    assert next(iter(decision.details["collections"])) == data.category[0]
    assert data.category[0] in decision.reason


@pytest.mark.parametrize(
    "options",
    [
        {"aggregate": "max", "metric": "cosine", "rho": 0.5},
        {"aggregate": "softmax_mean", "fallback": False},
        {"aggregate": "weighted_mean", "general": "expert-1"},
    ],
    ids=str,
)
def test_it_keeps_the_contract_in_every_mode(options, tmp_path):
    check_router(
        PilotRouter(encoder=HashingEncoder(), **options), synthetic_outcomes(n=100), tmp_path
    )


def test_the_published_variant_learns_and_is_saved(planted, tmp_path):
    encoder, data = planted
    router = PilotRouter(encoder=encoder, paper_exact=True).fit(data)
    loaded = load_router(router.save(tmp_path), encoder=encoder)
    assert loaded.route(data.queries[0]) == router.route(data.queries[0])
    assert float(router.state_["pilot.tau"][0]) == 0


def test_senseless_settings_and_names_are_refused(planted):
    encoder, data = planted
    for options in ({"rho": 1.5}, {"min_group": 0}, {"most": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            PilotRouter(encoder=encoder, **options)
    router = PilotRouter(encoder=encoder).fit(data)
    with pytest.raises(UnknownNameError, match="rot-9"):
        router.without("rot-9")
