"""Open the status page in Chromium through Playwright, and collect the errors that the browser reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
expect.set_options(timeout=10_000)


class OpenPage:
    """A tab with the status page, and its errors. Other attributes are those of Playwright's Page."""

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

    def accessibility_faults(self, *rules: str) -> list[str]:
        """Return the serious and critical violations that axe-core finds, by all its rules or only by
        `rules`.
        """
        options = {"runOnly": list(rules)} if rules else {}
        found = Axe().run(self.tab, options=options).response["violations"]
        return [
            f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]


@contextmanager
def launched() -> Iterator[Browser]:
    """Run a browser; skip the test if there is none. The test must not be async, because Playwright runs an
    event loop in this thread.
    """
    if CHROMIUM is None:
        pytest.skip("there is no `chromium` on this machine (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
