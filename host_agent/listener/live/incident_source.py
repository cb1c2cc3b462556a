"""`incident` events: an incident whenever it opens, changes or closes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from host_agent.incidents import Incidents
from host_agent.listener.live.hub import Publish
from host_agent.listener.live.mailbox import frame

MOST_OPEN = 50


class IncidentSource:
    """Publishes each change of an incident. A new follower is sent the open incidents at once."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents

    def newest(self) -> Mapping[str, bytes]:
        still_open = self._incidents.newest(MOST_OPEN, since=math.inf)[::-1]
        return {f"incident {each['id']}": frame("incident", each) for each in still_open}

    async def run(self, publish: Publish) -> None:
        while True:
            with self._incidents.follow() as changes:
                while (incident := await changes.get()) is not None:
                    publish(f"incident {incident['id']}", frame("incident", incident))
