import pytest

from composer.http.app import create_app
from tests.composer.http.servers import running
from tests.composer.http.ui.test_playground import ask, ended

FILE = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1000, completion: 2000}}
  - {name: dead, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
compositions:
  - {name: shaky, experts: [dead, cheap], baseline: dead}
"""
NEW = "  - {name: newcomer, kind: llm, backend: echo, model: echo}\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def live(tab, path):
    """Give the live view of a server of its own."""
    with running(create_app(path)) as url:
        tab.page.goto(f"{url}/ui#live")
        row(tab.page, "cheap").wait_for()
        yield tab.page


def row(page, expert):
    return page.locator("#experts tr", has=page.locator(f".name:text-is('{expert}')"))


def cell(page, expert, label):
    return row(page, expert).locator(f"td[data-label='{label}']")


def test_requests_spending_and_failures_appear_without_reloading(live):
    live.click("nav a[href='#playground']")
    live.locator("#model option[value='cheap']").wait_for(state="attached")
    ended(ask(live, "Hello", model="shaky"))
    live.click("nav a[href='#live']")
    cell(live, "cheap", "Spend").filter(has_text="$0.0030").wait_for()
    assert cell(live, "cheap", "Requests").inner_text() == "1"
    assert cell(live, "cheap", "Errors").inner_text() == "0"
    assert cell(live, "dead", "Errors").inner_text() == "1"
    assert live.locator("#chart-spend .total").inner_text() == "$0.0030"
    assert live.locator("[data-name='Requests'] dd").first.inner_text() == "1"


def test_an_edit_of_the_file_appears(live, path):
    path.write_text(FILE.replace("compositions:", NEW + "compositions:"))
    row(live, "newcomer").wait_for()
    assert live.locator("[data-name='Generation'] dd").first.inner_text() == "2"
    assert not live.locator("#refused").is_visible()


def test_a_refused_edit_is_told_with_line_and_reason(live, path):
    path.write_text(FILE.replace("kind: llm", "kind: lm", 1))
    refused = live.locator("#refused:visible")
    refused.wait_for()
    assert "experts.yaml:3: experts.0.kind: " in refused.inner_text()
    assert "Input should be 'llm', " in refused.inner_text()
    assert live.locator("[data-name='Generation'] dd").first.inner_text() == "1"
    path.write_text(FILE + "# mended\n")
    refused.wait_for(state="hidden")


def test_a_hidden_page_asks_no_more(live, tab):
    def show(is_hidden):
        tab.page.evaluate(
            """(isHidden) => {
              const hidden = { get: () => isHidden, configurable: true };
              Object.defineProperty(document, "hidden", hidden);
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_hidden,
        )

    show(True)
    live.wait_for_timeout(500)  # what was on its way
    before = len(tab.addresses)
    live.wait_for_timeout(4500)
    assert len(tab.addresses) == before
    with live.expect_request("**/admin/status"):
        show(False)


def test_a_hundred_experts_can_be_searched_and_sorted(tab, tmp_path):
    lines = [
        f"  - {{name: 'lab/expert-{i:03}', kind: llm, backend: echo, model: echo}}"
        for i in range(100)
    ]
    path = tmp_path / "experts.yaml"
    path.write_text("\n".join(["version: 1", "experts:", *lines, ""]))
    with running(create_app(path)) as url:
        page = tab.page
        page.goto(f"{url}/ui#live")
        row(page, "lab/expert-099").wait_for()
        assert page.locator("#experts tr").count() == 100
        page.get_by_role("button", name="Expert", exact=True).click()
        page.get_by_role("button", name="Expert", exact=True).click()
        assert page.locator("#experts .name").first.inner_text() == "lab/expert-099"
        page.fill("#find", "expert-01")
        assert page.locator("#experts tr").count() == 10
        assert page.locator("#found").inner_text() == "10 of 100 experts"


def test_a_call_in_flight_is_load(tab, tmp_path, upstream, upstream_url):
    entry = f"kind: llm, backend: openai, model: m, options: {{base_url: {upstream_url}}}"
    path = tmp_path / "experts.yaml"
    path.write_text(f"version: 1\nexperts:\n  - {{name: far, {entry}}}\n")
    with running(create_app(path)) as url:
        page = tab.page
        page.goto(f"{url}/ui")
        page.locator("#model option[value='far']").wait_for(state="attached")
        turn = ask(page, "stall", model="far")
        turn.locator(".rich", has_text="one two").wait_for()
        page.click("nav a[href='#live']")
        cell(page, "far", "Load").filter(has_text="1").wait_for()
        assert cell(page, "far", "Tier").inner_text() == "remote"
        assert cell(page, "far", "Breaker").inner_text() == "closed"
        page.click("nav a[href='#playground']")
        page.click("#send")
        page.click("nav a[href='#live']")
        cell(page, "far", "Load").filter(has_text="idle").wait_for()
