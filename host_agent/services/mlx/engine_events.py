"""Copy the MLX engine's events from its gateway into the journal: what died, why, and what was done."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from host_agent.journal import Journal
from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer
from vestal.supervision import Event

WAIT_S = 25.0  # the gateway answers when there are events, or after this time
ANSWER_TIMEOUT_S = 35.0
RETRY_S = 1.0

Identity = tuple[float, str, str]
"""The time, component and name of an event, which stay the same in the journal."""


class EngineEvents:
    """Copies the engine's events from the gateway, and from each gateway that replaces it, into the
    journal.

    A gateway that outlived the agent sends again what the earlier agent has recorded. These events are
    recognized by what the journal holds, and not by the clock, which may have been set meanwhile.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        port: int,
        journal: Journal,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Prepare to copy the MLX engine's events into `journal`. They come from the gateway, which listens
        at the local `port`. `follow` calls `on_event` with each event that the gateway sends, also with one
        that is in the journal already.
        """
        self._session, self._journal, self._on_event = session, journal, on_event
        self._url = f"http://127.0.0.1:{port}/events"
        self._instance, self._seq = "", 0

    async def follow(self) -> None:
        """Copy the engine's events from the gateway into the journal, request after request, until cancelled.
        Requests that bring no new event start at least RETRY_S seconds apart, because a gateway that is being
        stopped answers each of them at once.
        """
        while True:
            asked_at = time.monotonic()
            with contextlib.suppress(NoAnswer):
                if await self._fetch():
                    continue
            await asyncio.sleep(max(0.0, asked_at + RETRY_S - time.monotonic()))

    async def _fetch(self) -> bool:
        """Ask the gateway once for newer events, and record them. Return whether there were any. Raises
        NoAnswer if the gateway returns no list.
        """
        query = f"since={self._seq}&instance={self._instance}&wait_s={WAIT_S:g}"
        reply = await http_probe.get(self._session, f"{self._url}?{query}", ANSWER_TIMEOUT_S)
        events = reply.fields.get("events")
        if not isinstance(events, list):
            raise NoAnswer(f"HTTP {reply.status} is no list of events")
        instance, recorded = str(reply.fields.get("instance")), 0
        if instance != self._instance:  # another gateway numbers its events from 1
            self._instance, self._seq = instance, 0
            recorded = self._count_recorded(events)
        before = self._seq
        for number, entry in enumerate(events):
            self._take(entry, is_recorded=number < recorded)
        return self._seq > before

    def _count_recorded(self, events: Sequence[dict[str, Any]]) -> int:
        """Return how many of `events`, counted from the first, are in the journal already. The last event
        that is found in the journal decides: it and all events before it count.
        """
        names = {str(entry["event"]) for entry in events}
        known: set[Identity] = {(row[1], row[2], row[3]) for row in self._journal.rows_of(names)}
        found = [(each["ts"], each["component"], each["event"]) in known for each in events]
        return max((number for number, is_known in enumerate(found, 1) if is_known), default=0)

    def _take(self, entry: dict[str, Any], is_recorded: bool) -> None:
        event = Event(
            entry["ts"], entry["seq"], entry["component"], entry["event"], entry["cause"], entry["fields"]
        )
        self._seq = event.seq
        self._on_event(event)
        if not is_recorded:
            self._journal.append(event)
