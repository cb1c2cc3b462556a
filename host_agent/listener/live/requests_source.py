"""Follow the gateway's list of requests in flight, and send it, unchanged, to the followers of GET /live as
events named `requests`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import time
from collections.abc import AsyncIterator, Mapping

import aiohttp

from host_agent.listener.live.hub import Publish
from host_agent.listener.live.mailbox import frame
from vestal.web import server_sent_events

KEY = "requests"
FIRST_LIST_WITHIN_S = 3.0
SILENT_FOR_S = 15.0  # the gateway sends its list each 10 s even without a change
RETRY_S = 1.0
UNKNOWN_ROUTE_RETRY_S = 30.0
FORGET_AFTER_S = 2.0
UNKNOWN_ROUTE = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED)
MAX_LINE_BYTES = 4 * 1024 * 1024
NO_REQUESTS = frame("requests", {"requests": [], "totals": None})


class RequestsSource:
    """Publishes the gateway's list of requests in flight to the followers of GET /live, each time the gateway
    sends the list in its response to GET /requests/events. Connects again if the connection ends, for example
    by an upgrade.

    If no gateway has sent its list for FORGET_AFTER_S, the list that was published last is out of date, so an
    empty list is published. If the gateway has no route GET /requests/events, the empty list is published at
    once, because the next attempt comes only after UNKNOWN_ROUTE_RETRY_S.
    """

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session, self._url = session, f"http://127.0.0.1:{port}/requests/events"
        self._frame = b""
        self._received_at = 0.0

    def newest(self) -> Mapping[str, bytes]:
        return {KEY: self._frame} if self._frame else {}

    async def run(self, publish: Publish) -> None:
        self._received_at = time.monotonic()
        try:
            while True:
                retry_s = RETRY_S
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    retry_s = await self._follow(publish)
                silent_s = time.monotonic() - self._received_at
                if self._frame != NO_REQUESTS and max(silent_s, retry_s) > FORGET_AFTER_S:
                    self._publish(NO_REQUESTS, publish)
                await asyncio.sleep(retry_s)
        finally:  # so that a page opened later does not show an old list
            self._frame = b""

    async def _follow(self, publish: Publish) -> float:
        """Connect to the gateway, and publish each list of requests that it sends, until the connection ends.
        Return how many seconds to wait before the next connection: UNKNOWN_ROUTE_RETRY_S if the gateway has
        no such route, else RETRY_S. RETRY_S also follows any other error status, such as the 503 of a gateway
        that is being replaced.
        """
        loop = asyncio.get_running_loop()
        no_limit = aiohttp.ClientTimeout(total=None)
        async with (
            asyncio.timeout(FIRST_LIST_WITHIN_S) as deadline,
            self._session.get(self._url, timeout=no_limit, allow_redirects=False) as answer,
        ):
            if answer.status != http.HTTPStatus.OK:
                return UNKNOWN_ROUTE_RETRY_S if answer.status in UNKNOWN_ROUTE else RETRY_S
            async for data in event_data(answer.content.iter_any()):
                deadline.reschedule(loop.time() + SILENT_FOR_S)
                self._received_at = time.monotonic()
                self._publish(server_sent_events.frame(data, "requests"), publish)
        return RETRY_S

    def _publish(self, new: bytes, publish: Publish) -> None:
        self._frame = new
        publish(KEY, new)


async def event_data(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of each server-sent event in a response body, which arrives in `pieces`. The data of an
    event must be one line. Raises ValueError if a line is longer than MAX_LINE_BYTES.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[len(b"data:") :].strip()
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("a line is too long")
