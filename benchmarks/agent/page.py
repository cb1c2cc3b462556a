"""Measure the status page: its first paint, its size on the wire, and the agent's CPU time while a page is
open.

    python -m benchmarks.agent.page

A real agent with gateway and engine serves the page. Chromium opens it with an empty cache, and then once
more.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import time

import aiohttp
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.processes.agent import AgentProcess, agent, until_healthy

TIMES = 10
OPEN_S = 30.0
FIRST_PAINT_LIMIT_MS, WIRE_LIMIT_BYTES = 300.0, 200_000
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
PAINT = """() => new Promise(resolve => new PerformanceObserver(list => {
    const found = list.getEntriesByName("first-contentful-paint")[0];
    if (found) resolve(found.startTime);
}).observe({type: "paint", buffered: true}))"""
RECEIVED = """() => ["resource", "navigation"].flatMap(kind => performance.getEntriesByType(kind))
    .filter(entry => !entry.name.includes("/live") && !entry.name.includes("/history"))
    .reduce((sum, entry) => sum + entry.transferSize, 0)"""


async def main() -> int:
    """Measure the page and print the figures. Return 1 if the first paint or the size is over its limit, else
    0.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        print("There is no `chromium` on this machine; install Debian's package.")
        return 0
    with agent() as running:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            try:
                return await _measure(browser, running)
            finally:
                await browser.close()


async def _measure(browser: Browser, running: AgentProcess) -> int:
    async with aiohttp.ClientSession(running.url, headers=running.headers) as http:
        await until_healthy(http)
    cold, warm = [], []
    for _ in range(TIMES):
        context = await browser.new_context()
        page = await context.new_page()
        cold.append(await _paint(page, await _link(running)))
        received = await page.evaluate(RECEIVED)
        warm.append(await _paint(page, running.url))
        await context.close()
    page = await browser.new_page()
    await _paint(page, await _link(running))
    open_percent = await _cpu_percent(running)
    await page.close()
    closed_percent = await _cpu_percent(running)
    paint_ms = statistics.median(cold)
    print(f"first paint, empty cache: median {paint_ms:.0f} ms, longest {max(cold):.0f} ms")
    print(f"first paint, again:       median {statistics.median(warm):.0f} ms, longest {max(warm):.0f} ms")
    print(f"on the wire:              {received / 1000:.1f} kB with headers")
    print(f"agent, page open:         {open_percent:.2f} % of a core; closed: {closed_percent:.2f} %")
    return 1 if paint_ms > FIRST_PAINT_LIMIT_MS or received > WIRE_LIMIT_BYTES else 0


async def _link(running: AgentProcess) -> str:
    """Create a login link at the agent, which is valid for one login, and return its URL."""
    url = f"{running.url}/login-links"
    async with aiohttp.ClientSession(headers=running.headers) as http, http.post(url, json={}) as reply:
        return str((await reply.json())["url"])


async def _paint(page: Page, url: str) -> float:
    """Open the page, wait until its services are shown, and return the time of its first paint in ms."""
    await page.goto(url, wait_until="commit")
    await page.wait_for_selector(".tree")
    return float(await page.evaluate(PAINT))


async def _cpu_percent(running: AgentProcess) -> float:
    """Wait 5 s, then return the agent's CPU time over OPEN_S seconds, as a percentage of one core."""

    def used() -> float:
        times = running.process.cpu_times()
        return float(times.user + times.system)

    await asyncio.sleep(5)
    begin, began_at = used(), time.monotonic()
    await asyncio.sleep(OPEN_S)
    return 100 * (used() - begin) / (time.monotonic() - began_at)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
