import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from composer.contenders import best_columns
from composer.evaluation import evaluate
from experts_registry.errors import DataError, UnknownNameError
from routers.base import Router
from routers.baselines import BestOnAverage, Random
from routers.category import CategoryRouter
from routers.data import RoutingDataset
from routers.splits import split
from routers.testing import HashingEncoder, synthetic_outcomes

ENCODER = HashingEncoder(128)


@dataclass(kw_only=True)
class Constant(Router):
    """Always prefers one column."""

    column: int = 0

    def _fit(self, x, data):
        return {"score": np.eye(len(data.experts))[self.column]}

    def _score(self, x, state):
        return np.tile(state["score"], (len(x), 1))


@pytest.fixture(scope="module")
def parts():
    return split(synthetic_outcomes(1, n=500, categories=4))


@pytest.fixture(scope="module")
def report(parts):
    router = CategoryRouter(encoder=ENCODER).fit(parts.train)
    return evaluate(router, parts.train, parts.test)


def result(report, name):
    return next(policy for policy in report.policies if policy.name == name)


def against(report, name):
    return next(c for c in report.comparisons if c.baseline == name)


def test_a_router_that_reads_the_query_is_better_than_the_best_single(report):
    comparison = against(report, "best single")
    assert comparison.verdict == "better"
    assert 0 < comparison.interval.low < comparison.difference < comparison.interval.high
    assert against(report, "oracle").difference < 0
    assert 0 < report.gap_closed < 1


def test_means_are_those_of_the_table(parts):
    report = evaluate(Constant(encoder=ENCODER, column=1).fit(parts.train), parts.train, parts.test)
    test = parts.test
    by_category = [test.quality[np.array(test.category) == c, 1].mean() for c in test.categories]
    assert result(report, "router").quality == pytest.approx(np.mean(by_category))
    assert result(report, "router").plain_quality == pytest.approx(test.quality[:, 1].mean())
    assert result(report, "router").cost == pytest.approx(0.002)
    assert [c.router for c in report.categories] == pytest.approx(by_category)
    assert {c.chosen["expert-1"] for c in report.categories} == {1.0}
    assert [c.queries for c in report.categories] == [
        test.category.count(c) for c in test.categories
    ]


def test_the_same_choice_is_never_significant(parts):
    report = evaluate(BestOnAverage(encoder=ENCODER).fit(parts.train), parts.train, parts.test)
    comparison = against(report, "best single")
    assert (comparison.difference, comparison.verdict) == (0, "not significant")
    assert report.fallback_rate is None
    assert report.gap_closed == pytest.approx(0)


def test_the_interval_is_as_wide_as_theory_says(parts):
    one_category = parts.test.with_category([""] * len(parts.test))
    router = Constant(encoder=ENCODER).fit(parts.train)
    found = result(evaluate(router, parts.train, one_category), "router")
    expected = 1.96 * parts.test.quality[:, 0].std() / np.sqrt(len(parts.test))
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(expected, rel=0.1)


def test_a_handful_of_queries_proves_nothing(parts):
    few = parts.test.select(range(12))
    report = evaluate(Constant(encoder=ENCODER, column=1).fit(parts.train), parts.train, few)
    assert {comparison.verdict for comparison in report.comparisons} == {"not significant"}


def test_chance_is_called_better_about_as_often_as_it_should():
    better = 0
    for seed in range(25):
        data = synthetic_outcomes(seed, n=120)
        shuffled = np.random.default_rng(seed).permuted(data.quality, axis=1)
        parts = split(replace(data, quality=shuffled), test=0.5)
        report = evaluate(
            Random(encoder=ENCODER, seed=seed).fit(parts.train),
            parts.train,
            parts.test,
            controls=False,
            resamples=1000,
        )
        better += against(report, "best single").verdict == "better"
    assert better <= 4  # 2.5 % on either side


def test_the_same_seed_gives_the_same_report(parts, report):
    router = CategoryRouter(encoder=ENCODER).fit(parts.train)
    again = evaluate(router, parts.train, parts.test)
    (one,), (other,) = again.routers, report.routers
    assert replace(one, timing=None) == replace(other, timing=None)
    assert again.policies == report.policies


def test_the_report_is_json(report):
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["policies"][0]["name"] == "router"


def test_the_picture_has_experts_router_and_front(report):
    kinds = [point.kind for point in report.points]
    assert kinds.count("expert") == 3
    router = [point for point in report.points if point.kind == "router"]
    assert router[-1].cost < router[0].cost  # a high cost weight buys the cheap expert
    front = [point for point in report.points if point.kind == "mapping"]
    assert front[0].cost < front[-1].cost
    assert front[0].quality < front[-1].quality


def test_queries_with_missing_cells_are_left_out_and_counted(parts):
    quality = parts.test.quality.copy()
    quality[:7, 0] = np.nan
    router = BestOnAverage(encoder=ENCODER).fit(parts.train)
    report = evaluate(router, parts.train, replace(parts.test, quality=quality))
    assert (report.skipped, report.queries) == (7, len(parts.test) - 7)


def test_an_expert_without_test_outcomes_is_no_candidate(parts):
    quality = parts.test.quality.copy()
    quality[:, 2] = np.nan
    router = BestOnAverage(encoder=ENCODER).fit(parts.train)
    report = evaluate(router, parts.train, replace(parts.test, quality=quality))
    assert report.experts == ("expert-0", "expert-1")


def test_without_one_complete_query_there_is_nothing_to_compare(parts):
    quality = parts.test.quality.copy()
    quality[::2, 0] = np.nan
    quality[1::2, 1] = np.nan
    router = BestOnAverage(encoder=ENCODER).fit(parts.train)
    with pytest.raises(DataError, match="none of 100 queries has an outcome of each of expert-0"):
        evaluate(router, parts.train, replace(parts.test, quality=quality))


def test_unknown_costs_stay_unknown(parts):
    train, test = (
        replace(d, cost=np.full(d.cost.shape, np.nan)) for d in (parts.train, parts.test)
    )
    report = evaluate(CategoryRouter(encoder=ENCODER).fit(train), train, test)
    assert {policy.cost for policy in report.policies} == {None}
    json.dumps(report.to_json(), allow_nan=False)


def test_leaks_are_named(parts):
    leaky = RoutingDataset(
        queries=(*parts.test.queries, parts.train.queries[0].upper()),
        experts=parts.test.experts,
        quality=np.vstack([parts.test.quality, [[1, 1, 1]]]),
        ids=(*parts.test.ids, "leaked"),
    )
    router = BestOnAverage(encoder=ENCODER).fit(parts.train)
    assert evaluate(router, parts.train, leaky).leaks == ("leaked",)


def test_the_chosen_columns_are_those_that_route_chooses(parts):
    router = CategoryRouter(encoder=ENCODER, cost_weight=0.5).fit(parts.train)
    columns = best_columns(router.predict(parts.test.queries[:30]))
    routed = [router.route(query).primary for query in parts.test.queries[:30]]
    assert [router.experts_[c] for c in columns] == routed


def tradeoff(report, name):
    return result(report, name).tradeoff


def test_every_baseline_control_and_bound_stands_beside_the_router(report):
    kinds = {policy.name: policy.kind for policy in report.policies}
    assert kinds == {
        "router": "router",
        "best single": "baseline",
        "category table": "baseline",
        "prompt length": "baseline",
        "word ridge": "baseline",
        "random": "baseline",
        "shuffled control": "control",
        "category oracle": "bound",
        "oracle": "bound",
        "cheapest correct oracle": "bound",
    }
    assert {c.baseline for c in report.comparisons} == set(kinds) - {"router"}


def test_shuffled_outcomes_give_no_gain(report):
    shuffled = result(report, "shuffled control").quality
    assert shuffled == pytest.approx(result(report, "best single").quality, abs=0.06)
    assert against(report, "shuffled control").verdict == "better"
    assert against(report, "shuffled control").aiq.interval.low > 0


def test_words_alone_find_a_signal_that_lies_in_words(report):
    assert result(report, "word ridge").quality > result(report, "best single").quality + 0.1


def test_areas_lie_in_order_and_within_their_intervals(report):
    areas = [tradeoff(report, n).aiq for n in ("random", "best single", "router", "oracle")]
    assert [a.value for a in areas] == sorted(a.value for a in areas)
    assert all(a.interval.low < a.value < a.interval.high for a in areas)
    gain = against(report, "best single").aiq
    assert 0 < gain.interval.low < gain.value < gain.interval.high
    # A paired difference is known better than its two sides.
    width = gain.interval.high - gain.interval.low
    assert width < areas[1].interval.high - areas[1].interval.low + (
        areas[2].interval.high - areas[2].interval.low
    )


def test_the_area_is_that_under_the_hull_of_the_curve(report):
    for policy in report.policies:
        cost, quality = np.array(policy.tradeoff.hull).T
        area = np.trapezoid(quality, cost) / (cost[-1] - cost[0])
        assert policy.tradeoff.aiq.value == pytest.approx(area)
        inside = [p for p in policy.curve if p.cost <= cost[-1]]
        assert all(np.interp(p.cost, cost, quality) >= p.quality - 1e-9 for p in inside)


def test_the_curve_goes_from_quality_to_cost(report):
    curve = result(report, "router").curve
    assert curve[0].quality > curve[-1].quality
    assert curve[-1].cost == pytest.approx(0.001)  # everything to the cheapest expert
    assert curve[-1].share == pytest.approx((1, 0, 0))
    assert all(sum(point.share) == pytest.approx(1) for point in curve)
    assert all(point.regret >= -1e-12 for point in curve)
    assert result(report, "oracle").curve[0].regret == 0


def test_regret_and_gap_are_measured_from_the_oracle(report):
    router, oracle = result(report, "router"), result(report, "oracle")
    assert router.regret == pytest.approx(oracle.quality - router.quality)
    assert (oracle.regret, oracle.gap_closed) == (0, 1)
    assert result(report, "best single").gap_closed == 0


def test_one_expert_for_everything_is_a_collapse(report):
    single, router = result(report, "best single"), result(report, "router")
    assert single.effective_experts == 1
    assert 2 < router.effective_experts <= 3
    assert result(report, "random").entropy is None


def test_equal_costs_have_no_tradeoff(parts):
    train, test = (replace(d, cost=np.ones(d.cost.shape)) for d in (parts.train, parts.test))
    report = evaluate(BestOnAverage(encoder=ENCODER).fit(train), train, test, controls=False)
    assert {policy.tradeoff for policy in report.policies} == {None}
    assert {c.aiq for c in report.comparisons} == {None}


def test_predictions_that_say_more_than_the_means_have_the_better_brier_score(report):
    found = report.routers[0].calibration
    assert found.brier < found.constant_brier
    assert sum(b.count for b in found.bins) == report.queries * 3
    assert 0 <= found.ece < 0.1


def test_the_pinned_expert_is_compared_with(parts):
    router = Constant(encoder=ENCODER, column=1).fit(parts.train)
    report = evaluate(router, parts.train, parts.test, baseline="expert-0", controls=False)
    pinned = report.routers[0].pinned
    assert pinned.baseline == "expert-0"
    assert pinned.difference == against(report, "pinned expert-0").difference
    same = evaluate(router, parts.train, parts.test, baseline="expert-1", controls=False)
    assert (same.routers[0].pinned.difference, same.routers[0].pinned.verdict) == (
        0,
        "not significant",
    )
    assert not same.policies[0].curve[0].below_baseline
    with pytest.raises(UnknownNameError, match="did you mean 'expert-1'"):
        evaluate(router, parts.train, parts.test, baseline="expert1")


def test_a_transform_changes_what_is_chosen(parts):
    class Only:
        def __call__(self, scores, context):
            assert context.x.shape[0] == len(scores)
            return np.where(np.arange(3) == 2, 1.0, 0.0) + np.zeros_like(scores)

        def note(self, before, after, context):
            return None

    router = CategoryRouter(encoder=ENCODER).fit(parts.train)
    report = evaluate(
        {"free": router, "bound": router},
        parts.train,
        parts.test,
        transforms={"bound": [Only()]},
        controls=False,
    )
    assert {p.share[:2] for p in result(report, "bound").curve} == {(0, 0)}
    assert result(report, "free").quality > result(report, "bound").quality
    assert [r.name for r in report.routers] == ["free", "bound"]
    assert {"bound"} < {c.baseline for c in report.routers[0].comparisons}


def test_two_experts_of_constant_cost_have_the_strong_call_share_as_budget():
    data = synthetic_outcomes(n=400, experts=2, categories=2)
    parts = split(data)
    report = evaluate(CategoryRouter(encoder=ENCODER).fit(parts.train), parts.train, parts.test)
    curve = [p for p in result(report, "router").curve if p.cost is not None]
    for point in curve:  # costs are 0.001 and 0.002
        assert point.cost == pytest.approx(0.001 * point.share[0] + 0.002 * point.share[1])
