"""`GET /events`: the journal, live, as server-sent events."""

import asyncio
from typing import Any

from aiohttp import web

from host_agent.journal import Journal
from host_agent.listener.live.mailbox import frame
from vestal.web.aiohttp_adapter import begin_event_stream
from vestal.web.http_error import HttpError
from vestal.web.server_sent_events import KEEP_ALIVE

MAX_STREAMS = 32
KEEPALIVE_EACH_S = 15.0
MAX_SEQ_DIGITS = 18  # SQLite's integers are of 64 bits


class EventStreams:
    """Handles GET /events. If MAX_STREAMS clients follow the events already, a further one gets an error with
    status 429.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = 0

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the client each new event, preceded by the saved events with numbers above `?since=` or
        `Last-Event-ID` if the client gives one of these.
        """
        text = request.query.get("since") or request.headers.get("Last-Event-ID")
        since = None if text is None else sequence_number(text, "since")
        if self._open >= MAX_STREAMS:
            message = f"{MAX_STREAMS} clients follow the events already; try again later."
            raise HttpError("too_many_requests", message, retry_after_s=KEEPALIVE_EACH_S)
        self._open += 1
        try:
            return await self._follow(request, since)
        finally:
            self._open -= 1

    async def _follow(self, request: web.Request, since: int | None) -> web.StreamResponse:
        with self._journal.follow() as queue:
            response = await begin_event_stream(request)
            try:
                sent = 0 if since is None else await self._send_saved(response, since)
                await self._send_live(response, queue, sent)
            except ConnectionError:
                pass  # the client has hung up
        return response

    async def _send_saved(self, response: web.StreamResponse, since: int) -> int:
        """Send all saved entries with numbers above `since`, a page at a time. Return the number of the last
        entry that was sent; 0 if there was none.
        """
        sent = 0
        while page := self._journal.since(max(since, sent)):
            for entry in page:
                await response.write(_frame(entry))
            sent = page[-1]["seq"]
        return sent

    async def _send_live(
        self, response: web.StreamResponse, queue: asyncio.Queue[dict[str, Any] | None], sent: int
    ) -> None:
        """Send the entries of `queue` whose numbers are above `sent`, until the queue's last item, None.
        While no entry comes, send an SSE comment each KEEPALIVE_EACH_S.
        """
        while True:
            try:
                async with asyncio.timeout(KEEPALIVE_EACH_S):
                    entry = await queue.get()
            except TimeoutError:
                await response.write(KEEP_ALIVE)
                continue
            if entry is None:
                return
            if entry["seq"] > sent:
                await response.write(_frame(entry))


def sequence_number(text: str, name: str) -> int:
    """Return `text`, the value of the query parameter `name`, as an int. Raises HttpError if it is not a
    whole number or has more than MAX_SEQ_DIGITS digits.
    """
    if not text.isascii() or not text.isdigit() or len(text) > MAX_SEQ_DIGITS:
        raise HttpError("invalid_request", f"{name} must be a whole number.")
    return int(text)


def _frame(entry: dict[str, Any]) -> bytes:
    return frame("journal", entry, entry["seq"])
