"""`GET /live`: send each follower the data of the status page whenever it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from host_agent.listener.context import ListenerContext
from host_agent.listener.live.hub import Hub
from host_agent.listener.live.incident_source import IncidentSource
from host_agent.listener.live.mailbox import Mailbox
from host_agent.listener.live.requests_source import RequestsSource
from host_agent.listener.live.sample_source import SampleSource
from host_agent.listener.live.status_source import StatusSource
from host_agent.listener.proxy.proxied_routes import Upstream
from vestal.web.aiohttp_adapter import begin_event_stream
from vestal.web.aiohttp_runner import until_client_leaves
from vestal.web.http_error import HttpError
from vestal.web.server_sent_events import KEEP_ALIVE

MAX_FOLLOWERS = 32
COMMENT_EACH_S = 15.0
FIRST = b"retry: 1000\n\n"  # milliseconds that a browser waits before it reconnects


class LiveRoutes:
    """The handler of GET /live, which sends clients the changing data of the status page as server-sent
    events. If MAX_FOLLOWERS clients are connected, a further one gets an error with status 429.

    `status` returns the body of GET /status, and `headers` are added to each response.
    """

    def __init__(
        self,
        context: ListenerContext,
        status: Callable[[], Awaitable[dict[str, Any]]],
        headers: Mapping[str, str],
    ) -> None:
        upstreams = context.upstreams
        self._headers = headers
        self._hub = Hub(
            [
                StatusSource(context.journal, status),
                RequestsSource(upstreams.session, upstreams.ports[Upstream.GATEWAY]),
                IncidentSource(context.incidents),
                SampleSource(context.history),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/live", self.live, allow_head=False)]

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Send the client the data of the status page as server-sent events, until the client leaves or the
        agent stops: first the newest data, then newer data whenever it comes. Raises HttpError with status
        429 if MAX_FOLLOWERS clients are connected already.
        """
        if self._hub.followers >= MAX_FOLLOWERS:
            message = f"{MAX_FOLLOWERS} pages are open already; close one of them."
            raise HttpError("too_many_requests", message, retry_after_s=COMMENT_EACH_S)
        with self._hub.follow() as mailbox:
            response = await begin_event_stream(request, self._headers)
            await until_client_leaves(request, _send(response, mailbox))
        return response

    def close(self) -> None:
        """End the stream of every client of GET /live."""
        self._hub.close()


async def _send(response: web.StreamResponse, mailbox: Mailbox) -> None:
    """Send the mailbox's frames until it is closed, and a comment after each long pause to keep the
    connection.
    """
    await response.write(FIRST)
    while True:
        try:
            async with asyncio.timeout(COMMENT_EACH_S):
                frames = await mailbox.take()
        except TimeoutError:
            frames = KEEP_ALIVE
        if not frames:
            return
        await response.write(frames)
