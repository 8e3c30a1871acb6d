import os
import shutil
import subprocess
import sys

import pytest

from composer.http.app import create_app
from experts_registry.registry import Registry
from tests.composer.http.servers import running, until
from tests.composer.libraries import FACTS, REGISTRY
from tests.composer.test_retrieval_real import build, write

HOSTILE = [
    '<img src=x onerror="document.title=`owned`">',
    "<script>document.title='owned'</script>",
    "**<svg onload=alert(1)>** and `<b>code</b>`",
    "```html\n<iframe srcdoc='<script>parent.document.title=1</script>'></iframe>\n```",
    "[here](javascript:alert(1)) ![x](https://example.org/x.png)",
]


def ask(page, text, model="cheap"):
    """Ask, and return the turn with its answer."""
    page.select_option("#model", model)
    before = page.locator("article.turn").count()
    page.fill("#question", text)
    page.press("#question", "Enter")
    return page.locator("article.turn").nth(before)


def ended(turn, how="answered"):
    turn.locator(".who .muted", has_text=how).wait_for()
    return turn


def told(turn):
    """Wait until the decision log has told the turn's story, and unfold it."""
    turn.locator("details.why:not([hidden]) > summary").click()
    return turn.locator(".story")


def test_the_page_loads_from_this_server_alone(tab, url):
    tab.page.goto(f"{url}/ui", wait_until="networkidle")
    assert tab.addresses
    assert all(address.startswith(f"{url}/") for address in tab.addresses)


def test_what_can_answer_may_be_chosen_and_retrievers_may_not(page):
    names = page.locator("#model option").all_inner_texts()
    assert {"auto", "shaky", "cheap", "lab/dear", "far"} <= set(names)
    assert "words" not in names
    grouped = page.locator("#model optgroup[label='Compositions'] option").all_inner_texts()
    assert {"auto", "shaky"} <= set(grouped)
    assert "cheap" not in grouped


def test_an_answer_says_who_gave_it_why_and_for_how_much(page):
    turn = ended(ask(page, "Hello there", model="auto"))
    assert turn.locator(".rich").inner_text() == "Hello there"
    story = told(turn)
    assert turn.locator(".expert").first.inner_text() == "cheap"
    experts = story.locator("table.candidates tbody th").all_inner_texts()
    assert experts == ["cheap", "lab/dear"]
    assert "cheap answered in" in story.inner_text()
    facts = turn.locator(".facts").inner_text()
    assert "$0.0000060" in facts  # 2 tokens read at 1 USD a million, 2 written at 2
    assert "2 + 2 tokens" in facts
    assert "first token" in facts


def test_an_excluded_candidate_says_what_excluded_it(page):
    turn = ended(ask(page, "word " * 300, model="auto"))
    told(turn)
    assert "context" in turn.locator(".candidates .excluded .reason").inner_text()


def test_an_answer_is_shown_while_it_comes(page, upstream):
    upstream.is_released = False
    turn = ask(page, "wait", model="far")
    turn.locator(".rich", has_text="one two").wait_for()
    assert page.locator("#log").get_attribute("aria-busy") == "true"
    assert page.locator("#send").inner_text() == "Stop"
    upstream.is_released = True
    ended(turn)
    assert page.locator("#log").get_attribute("aria-busy") == "false"


@pytest.mark.parametrize("stop", ["button", "escape"])
def test_stop_ends_the_upstream_call_and_keeps_what_came(page, upstream, stop):
    before = upstream.hung_up
    turn = ask(page, "stall", model="far")
    turn.locator(".rich", has_text="one two").wait_for()
    assert upstream.waiting
    page.click("#send") if stop == "button" else page.keyboard.press("Escape")
    ended(turn, "was stopped")
    until(lambda: upstream.hung_up == before + 1)
    assert turn.locator(".rich").inner_text() == "one two"
    assert page.locator("#send").inner_text() == "Send"
    story = told(turn).inner_text()
    assert "far was stopped" in story
    assert "(estimated)" in story
    assert turn.locator(".failed").count() == 0


def test_turns_and_settings_go_into_the_next_request(page, upstream):
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0.5")
    page.fill("#max_tokens", "7")
    ended(ask(page, "first", model="far"))
    ended(ask(page, "second", model="far"))
    sent = upstream.requests[-1]
    assert [(turn["role"], turn["content"]) for turn in sent["messages"]] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "one two"),
        ("user", "second"),
    ]
    assert sent["temperature"] == 0.5
    assert 7 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_writes_stays_text(page, tab, text):
    title = page.title()
    turn = ended(ask(page, text))
    told(turn)
    assert turn.locator("img, script, svg[onload], iframe, a, b").count() == 0
    assert page.title() == title
    assert tab.complaints == []
    for part in ("onerror", "script", "onload", "iframe", "javascript"):
        assert (part in text) == (part in turn.locator(".rich").inner_text())


def test_code_and_bold_are_set_apart(page):
    turn = ended(ask(page, "Take **care**:\n\n```python\nx = 1\n```\nand `y`."))
    rich = turn.locator(".rich")
    assert rich.locator("strong").inner_text() == "care"
    assert rich.locator("figure.code pre").inner_text() == "x = 1"
    assert rich.locator("figure.code figcaption").inner_text() == "python"
    assert rich.locator("p code").inner_text() == "y"


def test_an_error_is_shown_as_it_is_and_may_be_tried_again(page):
    turn = ended(ask(page, "Hello", model="dead"), "did not answer")
    said = turn.locator(".alert").inner_text()
    assert "expert 'dead'" in said
    assert "HTTP 503" in said
    assert "expert_unavailable" in said
    assert "req_" in said
    page.select_option("#model", "cheap")
    turn.get_by_role("button", name="Ask again").click()
    ended(page.locator("article.turn"))
    assert page.locator("article.turn .rich").inner_text() == "Hello"


def test_a_stream_that_breaks_keeps_what_came_and_says_so(page):
    turn = ended(ask(page, "one two three four", model="cut"), "did not answer")
    assert turn.locator(".rich").inner_text() == "one two"
    assert "fails on purpose" in turn.locator(".alert").inner_text()


def test_failed_calls_are_told(page):
    turn = ended(ask(page, "Hello", model="shaky"))
    story = told(turn)
    assert "dead failed with" in story.locator(".calls .failed").inner_text()
    assert "2 calls, 1 failed" in turn.locator(".facts").inner_text()


@pytest.mark.parametrize(("label", "quality"), [("Good answer", 1), ("Bad answer", 0)])
def test_a_grade_reaches_the_server(page, label, quality):
    turn = ended(ask(page, "Hello"))
    with page.expect_response("**/v1/feedback") as response:
        turn.get_by_role("button", name=label).click()
    assert response.value.json()["quality"] == quality
    assert response.value.json()["expert"] == "cheap"
    turn.locator(".tools", has_text="Noted").wait_for()
    assert turn.get_by_role("button", name=label).get_attribute("aria-pressed") == "true"


def test_who_would_answer_asks_nobody(page, upstream):
    before = len(upstream.requests)
    page.select_option("#model", "far")
    page.fill("#question", "Hello")
    page.click("#dry")
    page.locator("article.dry", has_text="would answer").wait_for()
    assert page.locator("article.dry .expert").inner_text() == "far"
    assert len(upstream.requests) == before
    assert page.input_value("#question") == "Hello"


def test_a_link_fills_the_form_and_sends_nothing(tab, url):
    link = "#playground?model=lab%2Fdear&temperature=0.2&max_tokens=9&system=S&prompt=Say%20it"
    tab.page.goto(f"{url}/ui{link}")
    tab.page.locator("#model option[value='cheap']").wait_for(state="attached")
    values = [tab.page.input_value(f"#{name}") for name in ("model", "temperature", "max_tokens")]
    assert values == ["lab/dear", "0.2", "9"]
    assert tab.page.input_value("#system") == "S"
    assert tab.page.input_value("#question") == "Say it"
    assert not any("completions" in address for address in tab.addresses)


def snippet(page, kind, text):
    page.select_option("#model", "cheap")
    page.fill("#question", text)
    page.click("#request")
    page.click(f"[data-form={kind}]")
    return page.locator("#snippet").inner_text()


AWKWARD = 'It\'s "$HOME" \\n `x`\nand é 😀'


def test_the_python_of_a_request_runs(page):
    code = snippet(page, "python", AWKWARD)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.stdout == f"cheap {AWKWARD}\n", done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_curl_of_a_request_runs(page):
    command = snippet(page, "curl", AWKWARD).replace("curl ", "curl --noproxy '*' -sS ", 1)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "OPENAI_API_KEY": "none"},
    )  # fmt: skip
    assert '"model":"cheap"' in done.stdout, done.stderr
    assert "and \\u00e9" in done.stdout or "and é" in done.stdout


def test_the_link_of_a_request_leads_back_to_it(page, tab):
    link = snippet(page, "link", AWKWARD)
    other = tab.page.context.new_page()
    other.goto(link)
    assert other.input_value("#question") == AWKWARD


def test_settings_have_room_on_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.reload()  # settings are closed on what is a phone from the start
    page.get_by_text("Settings", exact=True).click()
    assert page.locator("#temperature").is_visible()
    temperature, tokens = (
        page.locator(name).bounding_box() for name in ("#temperature", "#max_tokens")
    )
    assert temperature["width"] == tokens["width"] > 120
    assert temperature["y"] == tokens["y"]


def test_an_answer_shows_the_passages_it_was_given_and_those_it_cites(tab, tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(REGISTRY.replace("EXPERTS", "").replace("COMPOSITIONS", ""))
    write(tmp_path, "handbook", FACTS["handbook"])
    build(Registry.load(path), "handbook")
    with running(create_app(path)) as url:
        tab.page.goto(f"{url}/ui")
        turn = ended(ask(tab.page, "When does the canteen open?", model="grounded"))
        found = turn.locator("details", has_text="2 passages from handbook")
        found.locator("summary").click()
        first = found.locator("li").first
        assert FACTS["handbook"][1] in first.inner_text()
        assert "cited" in first.inner_text()  # an echo repeats its mark
        tab.page.select_option("#retrieval", "never")
        turn = ended(ask(tab.page, "When does the canteen open?", model="grounded"))
        turn.locator("summary", has_text="No passages").wait_for()
    assert not tab.complaints
