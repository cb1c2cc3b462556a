"""Helpers for the tests of the page's sections: find requests, confirm actions, and feed streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from playwright.sync_api import Locator

from tests.browser import OpenPage
from tests.component.host_agent.page.scripted_agent import ScriptedAgent
from tests.waiting import looks

LOOKS_EACH_S = 0.05  # seconds within which a stream notices that the browser has disconnected
DOUBLE_CLICK_MS = 380  # milliseconds before which a second click does not confirm
WITHIN_S = 30.0  # only a page that hangs takes so long
SKIPPED_S = 60.0  # by which a page's clock is set forward when it is stopped


def confirm(button: Locator) -> None:
    """Click a button that needs confirmation, and confirm."""
    asked = button.element_handle()  # the first click changes the label, so find the button by its place
    assert asked
    asked.click()
    for _ in range(5):
        button.page.wait_for_timeout(DOUBLE_CLICK_MS)
        asked.click()
        if not asked.evaluate("button => button.classList.contains('asking')"):
            return
        # The page withdraws its question after 5 s. A click that comes later only asks again.
    raise AssertionError("the page withdrew its question again and again")


def stop_clock(page: OpenPage) -> None:
    """Stop the clock of a page that was opened with `clock=True`. Only `page.clock.run_for` moves it then.

    It is set forward by SKIPPED_S first, since a clock cannot be stopped at its present time.
    """
    page.clock.pause_at(page.evaluate("Date.now() / 1000") + SKIPPED_S)


def bodies(agent: ScriptedAgent, method: str, path: str) -> list[Any]:
    """Return the bodies of the received requests with this method and path."""
    return [
        body for each_method, each_path, body in agent.asked if (each_method, each_path) == (method, path)
    ]


def wait_for_request(agent: ScriptedAgent, method: str, path: str, body: Any = None) -> None:
    """Wait until a request with this method and path was received."""
    wait_for(lambda: any(body in (None, each) for each in bodies(agent, method, path)))


def wait_for(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait until the condition is true; fail after a time limit."""
    for _ in looks(within_s, 0.05):
        if condition():
            return
    assert condition()


class FedStream:
    """A streamed response of one JSON object a line, controlled by the test: `feed`, then `end` or `cut`.

    `left` is set when the browser has closed the connection.
    """

    def __init__(self, **headers: str) -> None:
        self.left = False
        self.requests: list[web.Request] = []
        self._headers = {"Content-Type": "application/x-ndjson", **headers}
        self._steps: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def feed(self, *objects: Any) -> None:
        """Send objects; if the browser has not sent the request yet, send them when it does."""
        for each in objects:
            self._put(json.dumps(each).encode() + b"\n")

    def feed_bytes(self, data: bytes) -> None:
        """Send raw bytes, such as a part of a line."""
        self._put(data)

    def end(self) -> None:
        """Complete the response."""
        self._put(b"")

    def cut(self) -> None:
        """Close the connection in the middle of the response."""
        self._put(None)

    def _put(self, step: bytes | None) -> None:
        if self._loop is None:
            self._steps.put_nowait(step)
        else:
            self._loop.call_soon_threadsafe(self._steps.put_nowait, step)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self._loop = asyncio.get_running_loop()
        self.requests.append(request)
        response = web.StreamResponse(headers=self._headers)
        await response.prepare(request)
        while True:
            try:
                step = await asyncio.wait_for(self._steps.get(), LOOKS_EACH_S)
            except TimeoutError:
                if request.transport is None or request.transport.is_closing():
                    self.left = True
                    return response
                continue
            if step == b"":
                return response
            if step is None:
                if request.transport:
                    request.transport.abort()
                return response
            await response.write(step)


def said(content: str = "", **more: Any) -> dict[str, Any]:
    """Return one line of an /api/chat stream, with a piece of the answer."""
    return {"message": {"role": "assistant", "content": content, **more}, "done": False}


DONE = said() | {"done": True, "done_reason": "stop", "eval_count": 8, "eval_duration": 400_000_000}
