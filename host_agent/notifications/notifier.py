"""Follow the incidents, and send a person the notices that are due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from host_agent.incidents import Incident, Incidents, local_clock
from host_agent.journal import Journal
from host_agent.notifications.channels import Channel
from host_agent.notifications.notices import Notice, due, next_due_in_s

WATCHED = 50  # how many of the newest incidents are considered


class Notifier:
    """Sends each notice that is due about `incidents` to every channel, and records in the journal whether it
    was delivered. Notices that an earlier run of the agent sent are in the journal too, so none is sent
    twice.

    `not_possible` says which configured channel is missing, with the remedy, and is recorded in the journal;
    it is "" if no channel is missing. `wall` returns the seconds since 1970. `monotonic` returns the seconds
    of a clock that nobody sets and that stops while the machine sleeps.
    """

    def __init__(
        self,
        journal: Journal,
        incidents: Incidents,
        channels: Mapping[str, Channel],
        *,
        not_possible: str = "",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._incidents, self._channels = journal, incidents, channels
        self._not_possible, self._wall, self._monotonic = not_possible, wall, monotonic
        self._seen_at: dict[int, float] = {}  # when each incident was first seen, by its id

    async def run(self) -> None:
        """Send notices as they become due, until the agent stops."""
        if self._not_possible:
            self._journal.record("notifications", "notices_not_possible", self._not_possible)
            self._not_possible = ""
        with self._incidents.follow() as changes:
            while True:
                await self._send_due()
                wait_s = self._next_due_in_s() if self._channels else None
                try:
                    async with asyncio.timeout(wait_s):
                        if await changes.get() is None:
                            return
                except TimeoutError:
                    continue
                while not changes.empty():  # one check covers all waiting changes
                    if changes.get_nowait() is None:
                        return

    async def _send_due(self) -> None:
        if self._channels:
            newest = self._newest()
            self._seen_at = {each.id: self._seen_at.get(each.id, self._monotonic()) for each in newest}
            for notice in due(newest, local_clock, self._wall(), self._lasted_s):
                await self._deliver(notice)

    def _next_due_in_s(self) -> float:
        return next_due_in_s(self._newest(), self._wall(), self._lasted_s)

    def _lasted_s(self, incident: Incident) -> float:
        """Return for how many seconds the incident has been open, as far as this notifier has seen.

        The journal's times do not say: the clock may have been set, and the machine may have slept since.
        """
        now = self._monotonic()
        return now - self._seen_at.get(incident.id, now)

    def _newest(self) -> list[Incident]:
        return self._incidents.all[-WATCHED:]

    async def _deliver(self, notice: Notice) -> None:
        """Send the notice to every channel, even if one of them fails."""
        await asyncio.gather(*(self._send(name, channel, notice) for name, channel in self._channels.items()))

    async def _send(self, name: str, channel: Channel, notice: Notice) -> None:
        fields = {"channel": name, "incident": notice.incident, "over": notice.over}
        try:
            await channel(notice)
        except Exception as error:
            self._journal.record("notifications", "notice_not_delivered", str(error), **fields)
        else:
            self._journal.record("notifications", "notice_delivered", notice.title, **fields)
