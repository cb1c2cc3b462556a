"""The page in a real Chromium, with a scripted agent behind it.

A test opens the page with `open_page`. Whatever the browser reports as an error, and every violation of the
Content-Security-Policy, fails the test, unless the test lists a part of its text in `page.expected`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.component.host_agent.page.scripted_agent import ScriptedAgent

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = (1280, 900), (375, 800)
NOTE_VIOLATIONS = """document.addEventListener("securitypolicyviolation",
    (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));"""
expect.set_options(timeout=5_000)


class OpenPage:
    """A tab with the page, and what went wrong in it. Other attributes are those of Playwright's Page."""

    def __init__(self, page: Page) -> None:
        self.tab = page
        self.expected: list[str] = []
        self._errors: list[str] = []
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", lambda m: self._errors.append(m.text) if m.type == "error" else None)
        page.add_init_script(NOTE_VIOLATIONS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tab, name)

    def errors(self) -> list[str]:
        """Return the errors that the test did not expect."""
        return [error for error in self._errors if not any(part in error for part in self.expected)]

    def accessibility_faults(self) -> list[str]:
        """Return what axe-core finds that is serious or critical, with the elements."""
        found = Axe().run(self.tab).response["violations"]
        return [
            f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module, whose tests must not be async: Playwright runs a loop in this thread."""
    if CHROMIUM is None:
        pytest.skip("there is no `chromium` on this machine (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def scripted() -> Iterator[ScriptedAgent]:
    """A scripted agent that listens on a free port."""
    agent = ScriptedAgent().start()
    yield agent
    agent.end()


@pytest.fixture
def open_page(chromium: Browser, scripted: ScriptedAgent) -> Iterator[Callable[..., OpenPage]]:
    """A function that opens the page at `hash`, and returns it once it shows what the agent says."""
    contexts, pages = [], []

    def open_it(
        hash: str = "#now",
        *,
        dark: bool = False,
        size: tuple[int, int] = WIDE,
        url: str = "",
        ready: bool = True,
    ) -> OpenPage:
        width, height = size
        context = chromium.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
        )
        contexts.append(context)
        page = OpenPage(context.new_page())
        pages.append(page)
        page.goto((url or scripted.url) + hash, wait_until="commit")
        if ready:
            expect(page.get_by_role("navigation")).to_be_visible()
        return page

    yield open_it
    errors = [error for page in pages for error in page.errors()]
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(open_page: Callable[..., OpenPage]) -> OpenPage:
    """The page at #now, as a wide window in light colors."""
    return open_page()
