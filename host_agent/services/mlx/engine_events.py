"""Copy the MLX engine's events from its gateway into the journal: what died, why, and what was done."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from host_agent.journal import Journal
from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer
from vestal.supervision import Event

WAIT_S = 25.0  # the gateway answers when there are events, or after this time
ANSWER_TIMEOUT_S = 35.0
RETRY_S = 1.0


class EngineEvents:
    """Copies the engine's events from the gateway, and from each gateway that replaces it, into the
    journal.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        port: int,
        journal: Journal,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Prepare to copy the events. `follow` calls `on_event` with each, even if the journal has it
        already.
        """
        self._session, self._journal, self._on_event = session, journal, on_event
        self._url = f"http://127.0.0.1:{port}/events"
        self._instance, self._seq = "", 0
        # A gateway that outlived the agent sends again what the agent before has recorded already.
        newest = journal.newest(1)
        self._recorded_until = newest[0]["ts"] if newest else 0.0

    async def follow(self) -> None:
        """Copy the engine's events from the gateway into the journal until cancelled. If the gateway does not
        answer, try again after RETRY_S.
        """
        while True:
            try:
                await self._fetch()
            except NoAnswer:
                await asyncio.sleep(RETRY_S)

    async def _fetch(self) -> None:
        """Ask the gateway once for newer events, and record them. Raises NoAnswer if the gateway returns no
        list.
        """
        query = f"since={self._seq}&instance={self._instance}&wait_s={WAIT_S:g}"
        reply = await http_probe.get(self._session, f"{self._url}?{query}", ANSWER_TIMEOUT_S)
        events = reply.fields.get("events")
        if not isinstance(events, list):
            raise NoAnswer(f"HTTP {reply.status} is no list of events")
        instance = str(reply.fields.get("instance"))
        if instance != self._instance:  # another gateway numbers its events from 1
            self._instance, self._seq = instance, 0
        for entry in events:
            self._record(entry)

    def _record(self, entry: dict[str, Any]) -> None:
        event = Event(
            entry["ts"], entry["seq"], entry["component"], entry["event"], entry["cause"], entry["fields"]
        )
        self._seq = event.seq
        self._on_event(event)
        if event.ts > self._recorded_until:
            self._journal.append(event)
