"""The page in a real browser: Chromium, as Debian packages it."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on the PATH; set CHROMIUM to one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A tab, and what it complained of and whom it asked."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.addresses.append(request.url))

    def _heard(self, message):
        # The browser itself notes every answer that is no success; the page shows those.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)


@pytest.fixture
def tab(browser):
    """Give a fresh tab; whatever a test does, the page must not complain."""
    with browser.new_context(viewport={"width": 1100, "height": 800}) as context:
        context.set_default_timeout(20_000)
        watched = Watched(context.new_page())
        yield watched
        assert watched.complaints == []


@pytest.fixture
def page(tab, url):
    """Give the page, with its models read."""
    tab.page.goto(f"{url}/ui")
    tab.page.locator("#model option[value='cheap']").wait_for(state="attached")
    return tab.page
