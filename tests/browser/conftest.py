"""One Chromium for all browser tests; without one they are skipped, and say why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# No sandbox: tests may run as root. The rest keeps Chromium from looking for its own servers.
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium on this machine: install one to test pages in it")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page in a browser, and all that went wrong or went out while it was open."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def frame(self) -> None:
        """Wait until everything that was asked for is drawn."""
        self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def wait_for(self, expression: str) -> None:
        """Wait until it is true; the policy of the page forbids what playwright has for that."""
        deadline = time.monotonic() + 10
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.frame()

    def text(self, selector: str) -> str:
        self.frame()
        return str(self.page.locator(selector).first.inner_text())

    def place(self, selector: str, across: float, down: float) -> tuple[float, float]:
        """A place on the screen inside an element; both shares are 0..1."""
        target = self.page.locator(selector).first
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        return box["x"] + across * box["width"], box["y"] + down * box["height"]


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a page from disk; at the end nothing may have been complained of, nor loaded."""
    contexts = []

    def open_(html: str, **context: Any) -> Opened:
        path = tmp_path / f"page-{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        size = {"width": 1200, "height": 900}
        contexts.append(chromium.new_context(**{"viewport": size, **context}))
        made = Opened(contexts[-1].new_page())
        made.page.on("console", lambda message: made.complaints.append(message.text))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("dialog", lambda dialog: made.complaints.append(dialog.message))
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.goto(path.as_uri())
        if context.get("java_script_enabled", True):
            made.frame()
        pages.append(made)
        return made

    pages: list[Opened] = []
    yield open_
    for made in pages:
        # of the tests that look at pixels
        assert [one for one in made.complaints if "willReadFrequently" not in one] == []
        assert [url for url in made.requests[1:] if not url.startswith("data:")] == []
    for context in contexts:
        context.close()
