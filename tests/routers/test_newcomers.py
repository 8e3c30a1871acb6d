from dataclasses import replace

import numpy as np
import pytest

from experts_registry.errors import OptionError
from routers.base import load_router
from routers.data import RoutingDataset
from routers.linear import LinearRouter
from routers.prior import PRIOR_ERROR
from routers.splits import split
from routers.testing import HashingEncoder, synthetic_outcomes

ENCODER = HashingEncoder(96)
PARTS = split(synthetic_outcomes(3, n=900, experts=4, categories=4))
NEW, OTHERS = "expert-3", ("expert-0", "expert-1", "expert-2")
TEST = PARTS.test.queries


@pytest.fixture(scope="module")
def router():
    return LinearRouter(encoder=ENCODER).fit(PARTS.train.only(OTHERS))


def nothing(*names):
    return RoutingDataset(queries=(), experts=names, quality=np.empty((0, len(names))))


def probes(n, value=None):
    data = PARTS.train.select(np.arange(n)).only([NEW])
    return data if value is None else replace(data, quality=np.full((n, 1), value))


def test_without_any_information_a_newcomer_is_the_mean_of_the_others(router):
    found = router.adopt(nothing(NEW)).predict(TEST)
    assert found.experts == (*OTHERS, NEW)
    assert found.quality[:, 3] == pytest.approx(found.quality[:, :3].mean(axis=1), abs=1e-6)
    assert (found.error[:, 3] > found.error[:, :3].max(axis=1)).all()
    assert (found.error[:, 3] <= PRIOR_ERROR).all()
    assert (found.utility[:, 3] < found.quality[:, 3]).all()  # not chosen by luck


def test_a_declared_category_raises_it_there_and_only_there(router):
    plain = router.adopt(nothing(NEW)).predict(TEST).quality[:, 3]
    meant = router.adopt(nothing(NEW), domains={NEW: ["category-3", "no such category"]})
    raised = meant.predict(TEST).quality[:, 3] - plain
    own = np.array([c == "category-3" for c in PARTS.test.category])
    assert raised[own].mean() > 2 * raised[~own].mean()
    assert (raised >= -1e-6).all()


def test_published_scores_pull_towards_themselves_and_are_believed_in_part(router):
    level = float(router.state_["newcomer.level"][-1])
    mean = {}
    for score in (0.05, 0.95):
        told = router.adopt(nothing(NEW), published={NEW: {"overall": score}})
        mean[score] = told.predict(TEST).quality[:, 3].mean()
    assert 0.05 < mean[0.05] < level < mean[0.95] < 0.95
    there = router.adopt(nothing(NEW), published={NEW: {"category-3": 0.95}}).predict(TEST)
    own = np.array([c == "category-3" for c in PARTS.test.category])
    assert there.quality[own, 3].mean() > there.quality[~own, 3].mean() + 0.05


def test_a_published_score_outside_0_and_1_is_refused(router):
    with pytest.raises(OptionError, match=r"published: expert 'expert-3', 'overall': 71 is not in"):
        router.adopt(nothing(NEW), published={NEW: {"overall": 71}})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_probes_move_the_mean_towards_theirs(router, value):
    start = router.adopt(nothing(NEW)).predict(TEST).quality[:, 3].mean()
    means = [
        router.adopt(probes(n, value)).predict(TEST).quality[:, 3].mean() for n in (5, 40, 300)
    ]
    distance = [abs(m - value) for m in (start, *means)]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.2


def test_probes_find_out_what_it_is_good_at(router):
    found = router.adopt(probes(400)).predict(TEST).quality[:, 3]
    own = np.array([c == "category-3" for c in PARTS.test.category])
    assert found[own].mean() - found[~own].mean() > 0.3  # 0.9 against 0.3 was planted
    rows = np.random.default_rng(0).permutation(400)
    shuffled = replace(probes(400), quality=probes(400).quality[rows])
    noise = router.adopt(shuffled).predict(TEST).quality[:, 3]
    assert abs(noise[own].mean() - noise[~own].mean()) < 0.15


def test_the_error_shrinks_with_probes(router):
    error = [
        router.adopt(probes(n) if n else nothing(NEW)).predict(TEST).error[:, 3].mean()
        for n in (0, 10, 50, 300)
    ]
    assert error == sorted(error, reverse=True)
    assert error[-1] < 0.7 * error[0]


def test_missing_probes_count_for_nothing(router):
    data = probes(20)
    holes = replace(data, quality=np.full((20, 1), np.nan))
    with_nothing = router.adopt(nothing(NEW)).predict(TEST)
    assert router.adopt(holes).predict(TEST).quality == pytest.approx(with_nothing.quality)


def test_nobody_elses_scores_change_and_removal_is_exact(router):
    before = router.predict(TEST)
    adopted = router.adopt(probes(50))
    after, without = adopted.predict(TEST), adopted.predict(TEST, experts=OTHERS)
    for name in ("quality", "error", "utility", "cost"):
        assert np.array_equal(getattr(after, name)[:, :3], getattr(before, name))
        assert np.array_equal(getattr(without, name), getattr(before, name))
    assert router.newcomers_ == ()
    assert np.array_equal(router.predict(TEST).quality, before.quality)
    route = adopted.route(TEST[0], experts=OTHERS)
    assert route.candidates == router.route(TEST[0]).candidates


def test_a_second_newcomer_does_not_drive_the_first_one_out(router):
    first = router.adopt(probes(50))
    both = first.adopt(nothing("another"), published={"another": {"overall": 0.9}})
    assert both.newcomers_ == (NEW, "another")
    alone, together = first.predict(TEST), both.predict(TEST)
    assert together.quality[:, :4] == pytest.approx(alone.quality, abs=1e-6)
    assert together.error[:, :4] == pytest.approx(alone.error, abs=1e-6)
    assert set(both.lineage_["newcomers"]) == {NEW, "another"}
    again = both.adopt(probes(300))  # more is known of the first
    assert again.newcomers_ == ("another", NEW)
    assert again.predict(TEST).error[:, 4].mean() < alone.error[:, 3].mean()
    assert first.adopt(nothing(*OTHERS)).newcomers_ == (NEW,)


def test_explain_shows_newcomers_as_route_does(router):
    adopted = router.adopt(probes(50))
    story, decision = adopted.explain(TEST[0]), adopted.route(TEST[0])
    assert story.candidates == decision.candidates
    assert set(story.experts) == {*OTHERS, NEW}


def test_saving_keeps_newcomers(router, tmp_path):
    adopted = router.adopt(probes(50), domains={NEW: ["category-3"]})
    loaded = load_router(adopted.save(tmp_path / "router"), encoder=ENCODER)
    assert loaded.newcomers_ == (NEW,)
    for name in ("quality", "error", "utility", "cost"):
        assert np.array_equal(
            getattr(loaded.predict(TEST), name), getattr(adopted.predict(TEST), name)
        )


def test_its_cost_is_that_of_its_probes_in_the_routers_unit(router):
    paid = router.adopt(probes(50))
    assert paid.predict(TEST).cost[:, 3] == pytest.approx(0.004)
    other = replace(probes(50), cost_unit="B params")
    assert np.isnan(router.adopt(other).predict(TEST).cost[:, 3]).all()
    assert np.isnan(router.adopt(nothing(NEW)).predict(TEST).cost[:, 3]).all()


def test_twenty_probes_route_better_than_the_prior_alone():
    train, gains = PARTS.train, []
    for seed in range(8):
        hidden = f"expert-{seed % 4}"
        known = LinearRouter(encoder=ENCODER).fit(train.without(hidden))
        rows = np.random.default_rng(seed).choice(len(train), 20, replace=False)
        reached = []
        for data in (nothing(hidden), train.select(rows).only([hidden])):
            found = known.adopt(data).predict(TEST, experts=PARTS.test.experts)
            choice = found.utility.argmax(axis=1)
            reached.append(PARTS.test.quality[np.arange(len(TEST)), choice].mean())
        gains.append(reached[1] - reached[0])
    assert np.mean(gains) > 0


def test_a_router_without_categories_takes_newcomers_too(tmp_path):
    data = PARTS.train.with_category([""] * len(PARTS.train))
    plain = LinearRouter(encoder=ENCODER).fit(data.only(OTHERS))
    adopted = plain.adopt(probes(30), domains={NEW: ["category-3"]})
    assert np.isfinite(adopted.predict(TEST).quality).all()


def test_what_everybody_found_hard_does_not_count_against_it():
    """Probes on which all are right or all are wrong tell nothing of who is better."""
    rng = np.random.default_rng(0)
    data = synthetic_outcomes(5, n=600, experts=4, categories=4)
    hard = rng.random((600, 1)) < 0.5  # for all of them, whatever the query says
    quality = ~hard & (rng.random((600, 4)) < [0.9, 0.6, 0.3, 0.8])
    data = replace(data, quality=quality.astype(float))
    train, test = data.select(np.arange(500)), data.select(np.arange(500, 600))
    router = LinearRouter(encoder=ENCODER, penalty=100.0).fit(train.only(OTHERS))
    assert router.state_["newcomer.shared"][1] < 0.8
    missed = {"alone": [], "beside the others": []}
    for seed in range(20):
        drawn = train.select(np.random.default_rng(seed).permutation(500)[:20])
        for name, probes in (("alone", drawn.only([NEW])), ("beside the others", drawn)):
            found = router.adopt(probes).predict(test.queries).quality
            ahead = found[:, 3].mean() - found[:, :3].mean()
            missed[name].append((ahead - 0.1) ** 2)  # half of 0.8, less half of 0.9, 0.6 and 0.3
    assert np.mean(missed["beside the others"]) < 0.8 * np.mean(missed["alone"])


def test_a_probe_that_few_others_answered_counts_as_it_is(router):
    drawn = PARTS.train.select(np.arange(20))
    quality = drawn.quality.copy()
    quality[:, 1:3] = np.nan  # one of the three is left
    thin = router.adopt(replace(drawn, quality=quality)).predict(TEST)
    assert thin.quality == pytest.approx(router.adopt(probes(20)).predict(TEST).quality)
