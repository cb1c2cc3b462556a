"""`GET /events`: the journal, live, as server-sent events."""

import asyncio
import json
from typing import Any

from aiohttp import web

from host_agent.journal import Journal
from host_agent.listener.refusals import BadRequest, TooMany

MOST = 32
BEAT_S = 15.0
MAX_SEQ_DIGITS = 18


class Streams:
    """The readers that follow the journal, a bounded number of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = 0

    async def events(self, request: web.Request) -> web.StreamResponse:
        """From `?since=` or `Last-Event-ID` on; without either, only what comes from now on."""
        since = _since(request)
        if self._open >= MOST:
            raise TooMany(f"{MOST} readers follow the events already.", BEAT_S)
        self._open += 1
        try:
            return await self._follow(request, since)
        finally:
            self._open -= 1

    async def _follow(self, request: web.Request, since: int | None) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        with self._journal.follow() as queue:
            await response.prepare(request)
            try:
                for entry in [] if since is None else self._journal.since(since):
                    await response.write(_frame(entry))
                await self._live(response, queue)
            except ConnectionError:
                pass  # the reader left
        return response

    async def _live(self, response: web.StreamResponse, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    entry = await queue.get()
            except TimeoutError:
                await response.write(b": beat\n\n")
                continue
            if entry is None:
                return
            await response.write(_frame(entry))


def _frame(entry: dict[str, Any]) -> bytes:
    data = json.dumps(entry, default=str)
    return f"id: {entry['seq']}\nevent: journal\ndata: {data}\n\n".encode()


def _since(request: web.Request) -> int | None:
    text = request.query.get("since") or request.headers.get("Last-Event-ID")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > MAX_SEQ_DIGITS:
        raise BadRequest("since must be a whole number.")
    return int(text)
