"""The engine's life, told by its gateway and taken into the journal: what died, why, what was done."""

import asyncio
from typing import Any

import aiohttp

from host_agent.journal import Journal
from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer
from vestal.supervision import Event

WAIT_S = 25.0
ANSWER_WITHIN_S = 35.0
AWAY_S = 1.0  # between two looks at a gateway that is away


class EngineEvents:
    """Follows one gateway, and the next one where it is replaced."""

    def __init__(self, session: aiohttp.ClientSession, port: int, journal: Journal) -> None:
        self._session, self._journal = session, journal
        self._url = f"http://127.0.0.1:{port}/events"
        self._instance, self._seq = "", 0
        # An adopted gateway tells again what the agent before has noted already.
        newest = journal.newest(1)
        self._noted_until = newest[0]["ts"] if newest else 0.0

    async def follow(self) -> None:
        """For ever."""
        while True:
            try:
                await self._once()
            except NoAnswer:
                await asyncio.sleep(AWAY_S)

    async def _once(self) -> None:
        query = f"since={self._seq}&instance={self._instance}&wait_s={WAIT_S:g}"
        reply = await http_probe.get(self._session, f"{self._url}?{query}", ANSWER_WITHIN_S)
        events = reply.fields.get("events")
        if not isinstance(events, list):
            raise NoAnswer(f"HTTP {reply.status} is no list of events")
        instance = str(reply.fields.get("instance"))
        if instance != self._instance:  # another gateway, whose numbers begin anew
            self._instance, self._seq = instance, 0
        for entry in events:
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        event = Event(
            entry["ts"], entry["seq"], entry["component"], entry["event"], entry["cause"], entry["fields"]
        )
        self._seq = event.seq
        if event.ts > self._noted_until:
            self._journal.append(event)
