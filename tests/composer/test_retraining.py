import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from composer.feedback import Feedback
from composer.feedback_store import FeedbackStore
from composer.replacing import previous_of
from composer.retraining import merged, retrain, roll_back
from composer.routing import Routing
from composer.training import train
from experts_registry.errors import ArtefactError, DataError
from experts_registry.registry import Registry
from routers.base import load_router
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.testing import HashingEncoder, synthetic_outcomes
from tests.composer.test_cli import ok

ALL = synthetic_outcomes(n=460)
TRAIN, TEST, LATER = np.arange(100), np.arange(100, 220), np.arange(220, 460)


@pytest.fixture(scope="module")
def encoder():
    return HashingEncoder()


@pytest.fixture(scope="module")
def confused():
    """Outcomes whose training queries say nothing, as those of a badly graded run."""
    quality = ALL.quality.copy()
    quality[TRAIN] = np.random.default_rng(0).permuted(quality[TRAIN], axis=1)
    split = ["train" if i in TRAIN else "test" for i in range(len(ALL))]
    return replace(ALL, quality=quality, split=tuple(split)).select([*TRAIN, *TEST])


@pytest.fixture(scope="module")
def good():
    """The same outcomes with the truth in their training queries."""
    split = ["train" if i in TRAIN else "test" for i in range(len(ALL))]
    return replace(ALL, split=tuple(split)).select([*TRAIN, *TEST])


def said(rows, quality=ALL.quality):
    return [
        Feedback.about(
            ALL.queries[i], expert, float(quality[i, e]), category=ALL.category[i], cost=0.5
        )
        for i in rows
        for e, expert in enumerate(ALL.experts)
    ]


def trained(path, data, encoder):
    router = CategoryRouter(encoder=encoder, shrinkage=7.0, max_fallback=0.0)
    return train(router, data, path / "category").path


def test_a_router_that_kept_its_queries_keeps_them(tmp_path, good, encoder):
    router = CategoryRouter(encoder=encoder, max_fallback=0.0)
    path = train(router, good, tmp_path / "category", keep_queries=True).path
    retrain(path, encoder, good, said(LATER), force=True)
    state = load_router(path, encoder=encoder).state_
    assert len(state["rehearsal.x"]) == len(TRAIN) + len(LATER)


def test_a_router_that_learned_nothing_is_replaced_by_one_that_learned_from_feedback(
    tmp_path, confused, encoder
):
    path = trained(tmp_path, confused, encoder)
    before = (path / "router.json").read_text()
    done = retrain(path, encoder, confused, said(LATER))
    assert done.is_replaced
    assert done.judgement.queries == len(TEST)
    assert done.judgement.interval.low > 0.1
    assert (done.feedback, done.learned) == (720, 720)
    new = load_router(path, encoder=encoder)
    assert isinstance(new, CategoryRouter)
    assert new.shrinkage == 7.0
    assert (previous_of(path) / "router.json").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".category.lock", "category", "category.previous",
    ]  # fmt: skip


def test_a_worse_router_does_not_replace_a_better_one_unless_forced(tmp_path, good, encoder):
    path = trained(tmp_path, good, encoder)
    before = (path / "router.json").read_text()
    lies = said(LATER, 1 - ALL.quality)
    kept = retrain(path, encoder, good, lies)
    assert not kept.is_replaced
    assert kept.judgement.interval.high < 0
    assert (path / "router.json").read_text() == before
    assert not previous_of(path).exists()
    assert retrain(path, encoder, good, lies, force=True).is_replaced
    assert (path / "router.json").read_text() != before
    roll_back(path)
    assert (path / "router.json").read_text() == before
    assert (previous_of(path) / "router.json").exists()


def test_held_out_queries_stay_held_out(tmp_path, confused, encoder):
    path = trained(tmp_path, confused, encoder)
    seen = set(load_router(path, encoder=encoder).lineage_["seen"])
    with pytest.raises(DataError, match="all of it is on held-out queries"):
        retrain(path, encoder, confused, said(TEST))
    shouted = [replace(f, query=f.query.upper()) for f in said(TEST[:9])]
    done = retrain(path, encoder, confused, [*said(LATER), *shouted])
    assert (done.feedback, done.learned) == (747, 720)
    now = set(load_router(path, encoder=encoder).lineage_["seen"])
    assert len(now - seen) == len(LATER)
    assert seen < now
    again = retrain(path, encoder, confused, said(LATER))
    assert again.judgement.queries == len(TEST)
    assert again.judgement.old == pytest.approx(done.judgement.new)


def test_an_adopted_expert_is_not_forgotten_silently(tmp_path, confused, encoder):
    path = trained(tmp_path, confused, encoder)
    probes = replace(confused.select(range(20)).only(["expert-0"]), experts=("newcomer",))
    load_router(path, encoder=encoder).adopt(probes).save(path)
    with pytest.raises(DataError, match="adopted newcomer, which neither"):
        retrain(path, encoder, confused, said(LATER))
    assert load_router(path, encoder=encoder).newcomers_ == ("newcomer",)


def test_on_few_held_out_queries_a_lower_mean_is_enough_to_keep_the_old(tmp_path, good, encoder):
    few = good.select([*range(100), *range(100, 112)])
    path = trained(tmp_path, few, encoder)
    done = retrain(path, encoder, few, said(LATER, 1 - ALL.quality))
    assert done.judgement.queries == 12
    assert not done.is_replaced
    assert "too few for an interval" in str(done.judgement)


def test_an_expert_that_only_feedback_knows_joins_the_router(tmp_path, good, encoder):
    path = trained(tmp_path, good, encoder)
    new = [Feedback.about(ALL.queries[i], "newcomer", 1.0) for i in LATER]
    assert retrain(path, encoder, good, new, force=True).is_replaced
    assert "newcomer" in load_router(path, encoder=encoder).experts_


def test_what_cannot_be_retrained_is_refused(tmp_path, good, encoder):
    path = trained(tmp_path, good, encoder)
    with pytest.raises(DataError, match="none to learn from"):
        retrain(path, encoder, good, [])
    with pytest.raises(ArtefactError, match="was trained on none of these queries"):
        retrain(path, encoder, good.select(TEST), said(LATER))
    with pytest.raises(ArtefactError, match="holds no router"):
        retrain(tmp_path / "nowhere", encoder, good, said(LATER))
    with pytest.raises(ArtefactError, match="nothing to go back to"):
        roll_back(path)
    with FileLock(tmp_path / ".category.lock"), pytest.raises(DataError, match="another process"):
        retrain(path, encoder, good, said(LATER))


def test_feedback_fills_cells_averages_with_grades_and_adds_queries_and_experts():
    outcomes = RoutingDataset(
        queries=("one", "two"),
        experts=("a", "b"),
        quality=np.array([[1, np.nan], [0, 1]]),
        cost=np.array([[3, np.nan], [3, 3]]),
        category=("x", "y"),
        ids=("1", "2"),
    )
    feedback = [
        Feedback.about("one", "a", 0.0, cost=9),
        Feedback.about("one", "b", 0.5, cost=9),
        Feedback.about("three", "c", 1.0, category="x"),
        Feedback.about("four", "c", 1.0, category="never seen"),
    ]
    data = merged(outcomes, feedback)
    assert data.experts == ("a", "b", "c")
    assert dict(zip(data.queries, data.category, strict=True)) == {
        "one": "x", "two": "y", "three": "x", "four": "",
    }  # fmt: skip
    nan = np.nan
    np.testing.assert_array_equal(data.quality[:2], [[0.5, 0.5, nan], [0, 1, nan]])
    np.testing.assert_array_equal(data.quality[2:], [[nan, nan, 1]] * 2)
    np.testing.assert_array_equal(data.cost[:3], [[3, 9, nan], [3, 3, nan], [nan, nan, nan]])
    assert merged(data, feedback).queries == data.queries


REGISTRY = """\
version: 1
experts:
  - {name: expert-0, kind: llm, backend: echo, model: echo}
  - {name: expert-1, kind: llm, backend: echo, model: echo}
  - {name: expert-2, kind: llm, backend: echo, model: echo}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 64}}
compositions:
  - {name: auto, router: routers/category}
"""


def test_the_command_retrains_says_so_and_goes_back(tmp_path, confused):
    (tmp_path / "experts.yaml").write_text(REGISTRY)
    confused.save(tmp_path / "outcomes.parquet")
    words = Routing(Registry.load(tmp_path / "experts.yaml")).encoder()
    trained(tmp_path / "routers", confused, words)
    before = (tmp_path / "routers/category/router.json").read_text()
    with closing(FeedbackStore(tmp_path / "feedback.db")) as store:
        for feedback in said(LATER[:120]):
            store.add(feedback)
    said_so = ok("retrain", "--router", "routers/category", cwd=tmp_path)
    assert "learned 360 cells from 360 grades: quality" in said_so
    assert "saved routers/category" in said_so
    assert (tmp_path / "routers/category/router.json").read_text() != before
    back = json.loads(
        ok("retrain", "--router", "routers/category", "--rollback", "--json", cwd=tmp_path)
    )
    assert back["path"] == "routers/category"
    assert (tmp_path / "routers/category/router.json").read_text() == before
    found = json.loads(ok("retrain", "--router", "routers/category", "--json", cwd=tmp_path))
    assert found["is_replaced"]
    assert found["judgement"]["interval"]["low"] > 0
