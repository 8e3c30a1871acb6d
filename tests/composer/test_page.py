import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from composer.conclusions import conclude, single_expert
from composer.page import render_page, write_page
from composer.statistics import McNemar
from experts_registry.errors import DataError
from tests.composer.reports import comparison, report, with_experts

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = "<script>alert(1)</script>"
HARD = [EVIL, '" onload="alert(1)', "{{ 7 * 7 }}", "]]>&lt;", "\ud800"]


class Outline(HTMLParser):
    """Which elements a page has, whether they nest, and what may reach outside."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.outside, self.links = [], [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            value = named.get(key, "#")
            if not value.startswith("data:image/png;base64,"):
                (self.links if value.startswith("#") else self.outside).append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    return render_page(report(), command="expert-composer evaluate --out 'a folder'")


def test_the_page_is_one_sound_document_that_needs_nothing_else(page):
    outline = Outline(page)
    assert page.startswith("<!doctype html>")
    assert outline.outside == []
    assert {link[1:] for link in outline.links if link != "#"} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#)", page)


def test_only_the_script_that_is_ours_may_run(page):
    from base64 import b64encode
    from hashlib import sha256

    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert not re.search(r"\son\w+=", page)


def test_names_from_data_are_shown_and_never_obeyed(tmp_path):
    made = with_experts(HARD, name=EVIL)
    finding = replace(made.findings[0], message=EVIL, examples=tuple(HARD))
    router = replace(made.routers[0], lineage={"labels": HARD})
    made = replace(made, findings=(finding,), routers=(router,), leaks=tuple(HARD), baseline=EVIL)
    path = write_page(made, tmp_path / "report.html", command=" ".join(HARD))
    page = path.read_text(encoding="utf-8")
    outline = Outline(page)
    assert outline.tags.count("script") == 1
    assert outline.outside == []
    assert EVIL not in page
    assert not re.search(r"<[^>]*\sonload=", page)
    assert "<bdi>{{ 7 * 7 }}</bdi>" in page
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>" in page


def test_the_page_tells_every_part_of_the_report(page):
    for said in (
        "test0123", "train0123", "2026-01-02", "1000 resamples", "expert-composer evaluate",
        "5 are missing", "1.0 of 4 experts", "seed 1", "without <bdi>code</bdi>",
        "0.10, 0.20 ms", "0.240", "0 %, 10 %, 20 %", "30, 12, 0.0079",
    ):  # fmt: skip
        assert said in page, said
    assert "0123&#34;" not in page  # marks of single queries


def test_every_quality_has_its_interval_and_the_number_of_queries(page):
    table = page[page.index('aria-label="Table of policies"') :]
    rows = re.findall(r"<tr class=.*?</tr>", table[: table.index("</table>")], re.DOTALL)
    assert len(rows) == len(report().policies)
    assert all(re.search(r"<small>0\.\d{3} to 0\.\d{3}</small>", row) for row in rows)
    assert "n = 240" in table


def test_pictures_are_inline_and_described(page):
    assert page.count("<svg") == 6
    assert page.count('role="img"') == 6


def test_the_page_is_light_and_dark_and_can_be_printed(page):
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert rule in page


def test_a_report_that_knows_little_is_still_a_page():
    bare = report(costs=False)
    router = replace(
        bare.routers[0], calibration=None, timing=None, pinned=None, health=(), points=(),
        comparisons=tuple(replace(c, aiq=None, mcnemar=None) for c in bare.comparisons),
        categories=tuple(replace(c, difference=None) for c in bare.categories),
    )  # fmt: skip
    bare = replace(bare, routers=(router,), study=None, findings=(), baseline=None, queries=4)
    page = render_page(bare)
    Outline(page)
    assert "4 queries are too few to say whether routing gains" in page
    assert "too few queries" in page
    assert "<small>0.7" not in page[: page.index("Single experts")]


def test_a_folder_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(report(), tmp_path / "file" / "report.html")


# -- what is concluded --


def judged(single, table=0.0, aiq=None, half=0.02, **changes):
    """Return the conclusion where the router differs by so much from these two."""
    made = report(**changes)
    best = comparison("best single", single, half)
    best = replace(best, aiq=comparison("", single if aiq is None else aiq, half).aiq)
    rest = made.comparisons[2:]
    router = replace(
        made.routers[0], comparisons=(best, comparison("category table", table), *rest)
    )
    return conclude(replace(made, routers=(router,)))


def test_a_gain_is_told_with_its_interval_and_both_qualities():
    found = judged(0.05)
    assert found.tone == "good"
    assert found.headline == "The router answers better than the best single expert"
    assert found.sentences[0] == (
        "Mean quality is 0.800 on 240 held-out queries. That is better than the best single expert "
        "(small), with 0.750: the difference is +0.050 (95 % interval +0.030 to +0.070)."
    )


@pytest.mark.parametrize(
    ("case", "tone", "headline"),
    [
        ({"single": -0.05}, "bad", "worse than the best single expert"),
        ({"single": 0.01}, "open", "No gain over the best single expert could be shown"),
        ({"single": 0.01, "aiq": 0.05}, "good", "for the same money"),
        ({"single": 0.05, "table": -0.05}, "mixed", "table of the best expert for each category"),
        ({"single": 0.05, "queries": 19}, "open", "19 queries are too few"),
    ],
)
def test_nothing_is_claimed_that_was_not_shown(case, tone, headline):
    found = judged(**case)
    assert found.tone == tone
    assert headline in found.headline


def test_a_difference_that_is_not_significant_says_so():
    assert "No difference from the best single expert (small) could be shown" in " ".join(
        judged(0.01).sentences
    )


def test_a_difference_on_a_handful_of_queries_is_a_caution():
    made = report()
    four = replace(made.comparisons[0], mcnemar=McNemar(wins=4, losses=0, p=0.125))
    router = replace(made.routers[0], comparisons=(four, *made.comparisons[1:]))
    made = replace(made, routers=(router,))
    assert any("best single hang on fewer than 10" in s for s in conclude(made).cautions)
    assert "on few queries" in render_page(made)
    assert not any("hang on" in s for s in conclude(report()).cautions)


def test_unknown_costs_are_told():
    assert any("costs is not known" in s for s in conclude(report(costs=False)).sentences)


def test_cautions_name_what_weakens_the_figures():
    made = report(queries=150, leaks=("a",), skipped=3, study=None)
    router = replace(
        made.routers[0],
        comparisons=tuple(
            comparison(c.baseline, 0.0 if c.baseline == "shuffled control" else c.difference)
            for c in made.comparisons
        ),
        calibration=replace(made.routers[0].calibration, brier=0.3),
    )
    told = " ".join(conclude(replace(made, routers=(router,))).cautions)
    for said in (
        "150 held-out", "1 test queries also stand", "3 test queries lack", "One split only",
        "shuffled outcomes", "no better than that of each expert's mean (0.240)",
    ):  # fmt: skip
        assert said in told, said
    assert "shuffled" not in " ".join(conclude(report()).cautions)


def test_the_best_single_expert_is_named_where_it_is_known():
    assert single_expert(report()) == "small"
    bare = tuple(replace(p, curve=()) for p in report().policies)
    assert single_expert(replace(report(), policies=bare)) is None
