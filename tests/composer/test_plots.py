from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from composer.plots import category_heatmap, draw_report, quality_cost
from composer.report import CategoryResult, Interval, Point, PolicyResult, Report, RouterResult
from experts_registry.errors import DataError

COSTS = {"small": 0.3, "coder": 0.5, "twin": 0.5, "big": 9.0}
QUALITY = {"small": 0.4, "coder": 0.6, "twin": 0.6, "big": 0.8}


def policy(name: str, quality: float, cost: float | None) -> PolicyResult:
    interval = Interval(quality - 0.1, quality + 0.05)
    return PolicyResult(
        name=name, quality=quality, plain_quality=quality, cost=cost, interval=interval
    )


def report(*, points=None, **changes) -> Report:
    experts = [Point(kind="expert", label=n, cost=COSTS[n], quality=QUALITY[n]) for n in COSTS]
    curve = [Point(kind="router", label=f"{w}", cost=3 - w, quality=0.8 - w / 9) for w in (0, 1, 2)]
    points = [*experts, *curve] if points is None else points
    row = CategoryResult(
        category="code",
        queries=7,
        quality=QUALITY,
        chosen={"small": 0.0, "coder": 0.9, "twin": 0.0, "big": 0.1},
        router=0.62,
    )
    router = RouterResult(
        name="router",
        comparisons=(),
        categories=(row, replace(row, category="", queries=5)),
        calibration=None,
        timing=None,
        fallback_rate=None,
        points=tuple(p for p in points if p.kind != "expert"),
    )
    whole = Report(
        experts=tuple(COSTS),
        cost_unit="B params",
        queries=12,
        skipped=0,
        policies=(
            policy("router", 0.8, 3.0),
            policy("best single", 0.8, 9.0),
            policy("random", 0.6, 2.5),
            policy("a policy of tomorrow", 0.5, None),
        ),
        routers=(router,),
        experts_at=tuple(p for p in points if p.kind == "expert"),
        leaks=(),
        resamples=10,
        seed=0,
        train_digest="",
        test_digest="",
    )
    return replace(whole, **changes)


def svg(paths: list[Path]) -> str:
    return next(p for p in paths if p.suffix == ".svg").read_text()


def test_a_report_becomes_four_files(tmp_path):
    paths = draw_report(report(), tmp_path / "new" / "quality-cost.png")
    assert [p.name for p in paths] == [
        "quality-cost.png",
        "quality-cost.svg",
        "quality-cost-categories.png",
        "quality-cost-categories.svg",
    ]
    assert all(p.stat().st_size > 5000 for p in paths)


def test_the_picture_names_experts_policies_axes_and_units(tmp_path):
    text = svg(quality_cost(report(), tmp_path / "a.png"))
    for shown in (*COSTS, "router", "best single", "random", "router at other cost weights"):
        assert f">{shown}</text>" in text
    assert "mean cost of a query (billion active parameters)" in text
    assert "mean quality over categories" in text
    assert "12 held-out queries" in text


def test_the_cost_axis_is_logarithmic_where_costs_differ_much(tmp_path):
    near = [p for p in report().points if p.label != "big"]
    cheap = tuple(p for p in report().policies if p.name != "best single")
    wide = svg(quality_cost(report(), tmp_path / "wide.png"))
    narrow = svg(quality_cost(report(points=tuple(near), policies=cheap), tmp_path / "narrow.png"))
    assert wide.count('id="xtick') != narrow.count('id="xtick')


def test_costs_that_are_unknown_or_zero_are_drawn_all_the_same(tmp_path):
    unknown = report(
        points=tuple(replace(p, cost=None) for p in report().points),
        policies=tuple(replace(p, cost=None) for p in report().policies),
    )
    free = report(
        points=tuple(replace(p, cost=0.0) for p in report().points),
        policies=tuple(replace(p, cost=0.0) for p in report().policies),
    )
    assert "not known; give the experts prices" in svg(quality_cost(unknown, tmp_path / "u.png"))
    assert ">coder</text>" in svg(quality_cost(free, tmp_path / "f.png"))


def test_the_heatmap_shows_numbers_and_where_queries_go(tmp_path):
    text = svg(category_heatmap(report(), tmp_path / "h.png"))
    for shown in ("0.40", "0.80", "0.62", "sent 90%", "code  (n = 7)", "(none)  (n = 5)"):
        assert shown in text


def test_a_folder_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        quality_cost(report(), tmp_path / "file" / "a.png")
