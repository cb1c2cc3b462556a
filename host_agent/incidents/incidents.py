"""The incidents of a journal: followed live in the agent, or read from the journal's file if no agent
runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from host_agent.incidents import story
from host_agent.incidents.events import INCIDENT_EVENTS
from host_agent.incidents.fold import IncidentFold
from host_agent.incidents.incident import Incident
from host_agent.journal import COLUMNS, Journal, connect_read_only, event_from_row, fields_from

log = logging.getLogger("vestal")

FOLLOWER_BACKLOG = 1000  # the most unread incidents of a follower, which is then disconnected
MAX_ENTRIES = 500  # the most journal lines in one response about an incident

Followed = asyncio.Queue[dict[str, Any] | None]


class Incidents:
    """Derives the incidents from the journal: reads all events once, and then each new event when it is
    recorded.
    """

    def __init__(self, journal: Journal, *, wall: Callable[[], float] = time.time) -> None:
        self._journal, self._wall = journal, wall
        self._fold = IncidentFold(log_first_bug())
        self._followers: set[Followed] = set()
        self._fold.add_rows(journal.rows_of(INCIDENT_EVENTS), fields_from)
        journal.call_with_each(self._add)

    @property
    def all(self) -> list[Incident]:
        """Return the incidents that are kept in memory, oldest first."""
        return self._fold.ledger.incidents

    @property
    def any_open(self) -> bool:
        """Return whether an incident is open."""
        return any(incident.open for incident in self._fold.ledger.live)

    def newest(self, limit: int = 50, since: float = 0.0) -> list[dict[str, Any]]:
        """Return the newest `limit` incidents as JSON, newest first.

        Incidents that ended before `since` (seconds since 1970) are left out.
        """
        found = newest_of(self.all, limit, since)
        return [self.as_json(incident) for incident in found]

    def find(self, incident_id: int) -> dict[str, Any] | None:
        """Return an incident as JSON, with the first MAX_ENTRIES of its journal lines in `entries`.

        Return None if there is no such incident.
        """
        incident = self._fold.ledger.find(incident_id)
        if incident is None:
            return None
        entries = self._journal.since(incident.first_seq - 1, MAX_ENTRIES)
        return self.as_json(incident) | {
            "entries": [each for each in entries if each["seq"] <= incident.last_seq]
        }

    def as_json(self, incident: Incident) -> dict[str, Any]:
        """Return an incident as the JSON object that GET /incidents contains for it."""
        return story.as_json(incident, local_clock, self._wall())

    @contextlib.contextmanager
    def follow(self) -> Iterator[Followed]:
        """Yield a queue that receives each incident, as JSON, when the incident opens, changes or closes.

        If more than FOLLOWER_BACKLOG incidents wait in the queue, the last item is None and no more follow.
        """
        queue: Followed = asyncio.Queue(FOLLOWER_BACKLOG + 1)
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def _add(self, entry: dict[str, Any]) -> None:
        changed = self._fold.add(entry)
        if not self._followers:
            return
        for incident in changed:
            changed_json = self.as_json(incident)
            for queue in list(self._followers):
                if queue.qsize() >= FOLLOWER_BACKLOG:
                    self._followers.discard(queue)
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(changed_json)


def log_first_bug() -> Callable[[str, Exception], None]:
    """Return a function that logs the first exception which it is called with, with the name of the journal
    event that raised it, and ignores later ones, because a journal may have thousands of such events.
    """
    is_logged = False

    def on_bug(event: str, error: Exception) -> None:
        nonlocal is_logged
        if not is_logged:
            is_logged = True
            log.error("A bug: the incidents lack a journal event %r.", event, exc_info=error)

    return on_bug


def newest_of(incidents: list[Incident], limit: int, since: float) -> list[Incident]:
    """Return the newest `limit` incidents, newest first, without those that ended before `since` (seconds
    since 1970). `incidents` are sorted, oldest first.
    """
    recent = (each for each in reversed(incidents) if each.ended_at is None or each.ended_at >= since)
    return [incident for incident, _ in zip(recent, range(limit), strict=False)]


def incidents_in_file(path: Path) -> list[Incident]:
    """Return the incidents of a journal's file, oldest first.

    Raises sqlite3.Error if the file cannot be read.
    """
    folded = IncidentFold(log_first_bug())
    names = ", ".join("?" * len(INCIDENT_EVENTS))
    query = f"SELECT {COLUMNS} FROM events WHERE event IN ({names}) ORDER BY seq"
    with contextlib.closing(connect_read_only(path)) as database:
        folded.add_rows(database.execute(query, tuple(INCIDENT_EVENTS)), fields_from)
    return folded.ledger.incidents


def entries_in_file(path: Path, incident: Incident) -> list[dict[str, Any]]:
    """Return the first MAX_ENTRIES journal lines of an incident, from the journal's file.

    Raises sqlite3.Error if the file cannot be read.
    """
    query = f"SELECT {COLUMNS} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
    bounds = (incident.first_seq, incident.last_seq, MAX_ENTRIES)
    with contextlib.closing(connect_read_only(path)) as database:
        return [event_from_row(row) for row in database.execute(query, bounds)]


def local_clock(ts: float) -> str:
    """Return the time `ts` (seconds since 1970) as local time of day, with the date unless it is today."""
    try:
        then, today = time.localtime(ts), time.localtime()
    except (OverflowError, OSError, ValueError):
        return "an unknown time"
    same_day = then[:3] == today[:3]
    return time.strftime("%H:%M:%S" if same_day else "%d %b %H:%M:%S", then)
