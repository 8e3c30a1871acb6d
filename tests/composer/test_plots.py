import re
from dataclasses import replace
from itertools import pairwise

import pytest

pytest.importorskip("matplotlib")

from composer.canvas import inline_svg, looks, save, shown
from composer.forest import paired_counts
from composer.plots import PICTURES, category_heatmap, draw_report, quality_cost
from composer.statistics import McNemar
from experts_registry.errors import DataError
from tests.composer.reports import COSTS, report, with_experts


def svg(figure, tmp_path):
    return next(p for p in save(figure, tmp_path / "a.png") if p.suffix == ".svg").read_text()


def test_a_report_becomes_a_png_and_an_svg_of_every_picture(tmp_path):
    paths = draw_report(report(), tmp_path / "new")
    names = ("quality-cost", "categories", "calibration", "regret", "asked", "study")
    assert [p.name for p in paths] == [f"{n}.{e}" for n in names for e in ("png", "svg")]
    assert all(p.stat().st_size > 5000 for p in paths)


def test_what_a_report_does_not_know_is_not_drawn(tmp_path):
    bare = replace(
        report(costs=False), study=None, routers=(replace(report().routers[0], calibration=None),)
    )
    assert {p.stem for p in draw_report(bare, tmp_path)} == {"quality-cost", "categories"}


def test_the_quality_cost_picture_names_experts_policies_axes_and_units(tmp_path):
    text = svg(quality_cost(report()), tmp_path)
    for name in (*COSTS, "router", "best single", "random", "oracle"):
        assert f">{name}</text>" in text
    for said in ("mean cost of a query (billion active parameters)", "240 held-out queries", "AIQ"):
        assert said in text
    assert "0.712" in text  # AIQ of the router


def test_money_is_told_for_a_thousand_queries(tmp_path):
    text = svg(quality_cost(report(cost_unit="usd")), tmp_path)
    assert "mean cost of 1,000 queries (USD)" in text
    assert ">5000</text>" in text  # 5 USD a query


def test_the_cost_axis_is_logarithmic_where_costs_differ_much():
    near = tuple(replace(p, cost=0.4) for p in report().policies)
    cheap = replace(report(), experts_at=report().experts_at[:2], policies=near)
    assert quality_cost(report()).axes[0].get_xscale() == "log"
    assert quality_cost(cheap).axes[0].get_xscale() == "linear"


def test_without_costs_qualities_are_ranked(tmp_path):
    text = svg(quality_cost(report(costs=False)), tmp_path)
    assert "cost is not known; give the experts prices or active_params" in text
    assert ">router</text>" in text


def test_costs_of_zero_are_drawn(tmp_path):
    free = replace(
        report(),
        experts_at=tuple(replace(p, cost=0.0) for p in report().experts_at),
        policies=tuple(replace(p, cost=0.0, tradeoff=None) for p in report().policies),
    )
    assert ">coder</text>" in svg(quality_cost(free), tmp_path)


def test_fewer_than_twenty_queries_get_no_interval(tmp_path):
    few = replace(report(costs=False), queries=19)
    assert "too few for intervals" in svg(quality_cost(few), tmp_path)
    many, none = (quality_cost(r).axes[0].lines for r in (report(costs=False), few))
    assert len(many) == 2 * len(none)


def test_the_heatmap_shows_numbers_and_where_queries_go(tmp_path):
    text = svg(category_heatmap(report()), tmp_path)
    for told in ("0.40", "0.80", "0.62", "sent 90%", "code  (n = 120)", "(none)  (n = 120)"):
        assert told in text


@pytest.mark.parametrize("experts", [1, 2, 30])
def test_every_picture_takes_one_to_thirty_experts_with_long_names(experts):
    names = [f"a-very-long-name-of-a-model-that-does-not-end-{i}" for i in range(experts)]
    for picture, draw in PICTURES.items():
        if (figure := draw(with_experts(names))) is not None:
            assert "…" in inline_svg(figure, picture) or picture in ("calibration", "regret")


def test_names_of_columns_do_not_overlap_however_many(tmp_path):
    for n in (3, 12, 30):
        figure = category_heatmap(with_experts([f"some-model-{i}b-instruct" for i in range(n)]))
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_xticklabels()
        at = [figure.axes[0].transData.transform((t.get_position()[0], 0))[0] for t in ticks]
        least = min(b - a for a, b in pairwise(at))
        tall = ticks[0].get_fontsize() * figure.dpi / 72
        wide = max(t.get_window_extent().width for t in ticks)
        assert least > (tall if ticks[0].get_rotation() else wide)


def test_names_that_are_hard_to_draw_are_drawn(tmp_path):
    names = ["_hidden", "a$b$c", "line\nbreak", "北京", "\ud800", "<script>"]
    paths = draw_report(with_experts(names), tmp_path)
    assert len(paths) == 12
    text = (tmp_path / "categories.svg").read_text(encoding="utf-8")
    assert all(f"{name}</text>" in text for name in ("_hidden", "a$b$c", "line break", "北京"))
    assert "<script>" not in text


def test_long_names_keep_both_ends():
    assert shown("abcdefghij", 7) == "abc…hij"
    assert shown("") == "(none)"
    assert shown("_a") == " _a"


def test_no_two_policies_look_alike_but_for_color():
    drawn = looks(report())
    seen = {(look.marker, str(look.line)) for look in drawn.values()}
    assert len(seen) == len(drawn)


def test_an_inline_picture_follows_the_colors_of_the_page():
    text = inline_svg(quality_cost(report()), "one")
    assert text.startswith("<svg")
    assert "var(--ink)" in text
    assert "#222222" not in text
    assert "<metadata" not in text
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_identifiers_of_inline_pictures_are_kept_apart():
    texts = [inline_svg(quality_cost(report()), name) for name in ("one", "two")]
    ids = [set(re.findall(r'\sid="([^"]+)"', text)) for text in texts]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', texts[0])) <= ids[0]


def test_pictures_are_the_same_every_time(tmp_path):
    first, second = (svg(quality_cost(report()), tmp_path / part) for part in ("a", "b"))
    assert first == second


def test_the_interval_of_wins_and_losses_is_the_textbook_one():
    # Agresti (2002), section 10.1: 944 and 880 of 1600 approve, 150 and 86 change their minds.
    found = paired_counts(McNemar(wins=86, losses=150, p=0.0), 1600)
    assert (found.low, found.high) == pytest.approx((-0.0587, -0.0213), abs=2e-4)


def test_a_file_in_place_of_the_folder_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        save(quality_cost(report()), tmp_path / "file" / "a.png")
    with pytest.raises(DataError, match="is a file"):
        draw_report(report(), tmp_path / "file")
