"""Fixtures that open the status page in a real Chromium, served by a scripted agent.

A test opens the page with `open_page`. Every error that the browser reports, and every violation of the
Content-Security-Policy, fails the test, unless `page.expected` has a part of its text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import WIDE, OpenPage, launched
from tests.component.host_agent.page.scripted_agent import ScriptedAgent
from tests.component.host_agent.page.section_helpers import WITHIN_S

expect.set_options(timeout=1000 * WITHIN_S)
# The page as it is first drawn has neither: the button comes with the agent's answer.
SHOWS_DATA = "header button"
WAITING = re.compile(r"^(Asking the agent…|Loading…)$")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module, whose tests must not be async."""
    with launched() as browser:
        yield browser


@pytest.fixture
def scripted(free_port: Callable[[], int]) -> Iterator[ScriptedAgent]:
    """A scripted agent that listens on a free port."""
    agent = ScriptedAgent(free_port()).start()
    yield agent
    agent.end()


@pytest.fixture
def open_page(chromium: Browser, scripted: ScriptedAgent) -> Iterator[Callable[..., OpenPage]]:
    """A function that opens the page at `hash`, and returns it once it shows the agent's data and knows the
    version of its files. No request is then under way that would fail if the agent ended.
    """
    contexts, pages = [], []

    def open_it(
        hash: str = "#now",
        *,
        dark: bool = False,
        size: tuple[int, int] = WIDE,
        url: str = "",
        ready: bool = True,
        clock: bool = False,
    ) -> OpenPage:
        width, height = size
        context = chromium.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
        )
        contexts.append(context)
        page = OpenPage(context.new_page())
        pages.append(page)
        if clock:  # the page's clock runs as usual, and the test can advance it
            page.clock.install()
        version = page.expect_response(lambda response: response.request.method == "HEAD")
        with version if ready else contextlib.nullcontext():
            page.goto((url or scripted.url) + hash, wait_until="commit")
        if ready:
            expect(page.locator(SHOWS_DATA)).to_be_visible()
            expect(page.get_by_text(WAITING)).to_have_count(0)
        return page

    yield open_it
    errors = [error for page in pages for error in page.errors()]
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(open_page: Callable[..., OpenPage]) -> OpenPage:
    """The status page at #now, in a wide window with light colors."""
    return open_page()
