import pytest
from axe_playwright_python.sync_playwright import Axe

from composer.http.app import create_app
from composer.key_store import KeyStore
from tests.composer.http.servers import running
from tests.composer.http.ui.test_playground import ask, ended, told

FILE = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 2}}
  - {name: other, kind: llm, backend: echo, model: echo}
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """Give the address of a server with keys, and a function that makes one."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "experts.yaml").write_text(FILE)
    store = KeyStore(folder / "keys.db")
    store.create("first")
    with running(create_app(folder / "experts.yaml")) as url:
        yield url, store
    store.close()


def test_the_page_asks_for_a_key_and_sends_it_with_everything(tab, locked):
    url, store = locked
    token = store.create("reader", models=("cheap",)).token
    page = tab.page
    page.goto(f"{url}/ui")
    page.locator("#key-dialog[open]").wait_for()
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.locator("#key-error:not(:empty)").wait_for()
    page.fill("#key", token)
    page.press("#key", "Enter")
    page.locator("#key-dialog").wait_for(state="hidden")
    page.locator("#model option[value='cheap']").wait_for(state="attached")
    assert page.locator("#model option[value='other']").count() == 0
    with page.expect_request("**/v1/chat/completions") as asked:
        turn = ended(ask(page, "Hello"))
    assert asked.value.headers["authorization"] == f"Bearer {token}"
    told(turn)
    assert not any(token in address for address in tab.addresses)
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.locator("#model option[value='cheap']").wait_for(state="attached")
    page.click("#key-button")
    page.click("#key-forget")
    page.locator("#key-dialog[open]").wait_for()


def test_the_live_view_wants_a_key_of_an_admin(tab, locked):
    url, store = locked
    page = tab.page
    page.goto(f"{url}/ui#live")
    page.locator("#key-dialog[open]").wait_for()
    page.fill("#key", store.create("user").token)
    page.press("#key", "Enter")
    page.locator("#live-error", has_text="--admin").wait_for()
    page.click("#key-button")
    page.fill("#key", store.create("boss", is_admin=True).token)
    page.press("#key", "Enter")
    page.locator("#experts tr", has_text="other").wait_for()
    assert not page.locator("#live-error").is_visible()


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.ariaLabel || ''")


def tab_to(page, wanted):
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == wanted:
            return
    pytest.fail(f"Tab never reaches {wanted}")


def test_everything_can_be_done_with_the_keyboard(page):
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the question
    assert focused(page) == "question"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    turn = ended(page.locator("article.turn"))
    assert turn.locator(".rich").inner_text() == "one\ntwo"
    assert focused(page) == "question"
    page.locator("details.why:not([hidden])").wait_for()
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "Good answer")
    page.keyboard.press("Enter")
    turn.locator(".tools", has_text="Noted").wait_for()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


@pytest.mark.parametrize("view", ["playground", "live"])
def test_a_narrow_screen_needs_no_scrolling_sideways(page, view):
    page.set_viewport_size({"width": 360, "height": 700})
    told(ended(ask(page, "x" * 500 + "\n```\n" + "y" * 500 + "\n```", model="auto")))
    page.locator(".candidates .excluded").wait_for()
    if view == "live":
        page.click("nav a[href='#live']")
        page.locator("#experts tr").first.wait_for()
    wide = page.evaluate(
        "[...document.querySelectorAll('html, main:not([hidden]), #scroller, .live')]"
        ".filter((node) => node.scrollWidth > node.clientWidth).map((node) => node.id)"
    )
    assert wide == []


SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    ("view", "sign"),
    [("playground", "#model option[value='cheap']"), ("live", "#experts tr:first-child")],
)
def test_nothing_moves_while_the_page_loads(tab, url, view, sign, width):
    page = tab.page
    page.set_viewport_size({"width": width, "height": 740})
    page.add_init_script(SHIFTS)
    page.goto(f"{url}/ui#{view}")
    page.locator(sign).wait_for(state="attached")
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifted") < 0.1  # what web.dev calls good


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_shuts_people_out(page, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    told(ended(ask(page, "`code` and **bold**", model="shaky")))
    ended(ask(page, "Hello", model="dead"), "did not answer")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.click("#request")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.click("#code-close")
    page.click("nav a[href='#live']")
    page.locator("#experts tr").first.wait_for()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
