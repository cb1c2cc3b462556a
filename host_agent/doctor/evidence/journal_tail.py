"""Read the newest events of the agent's journal from its file, which works without an agent. Nothing is
written.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from host_agent.journal import COLUMNS, connect_read_only, event_from_row
from vestal.config import Home

MAX_EVENTS = 5000


def events(home: Home, names: Sequence[str], since: float) -> list[dict[str, Any]]:
    """Return the events that have one of these names and are not older than `since` (seconds since 1970),
    oldest first.

    At most the newest MAX_EVENTS are returned; none if there is no journal or it cannot be read.
    """
    placeholders = ",".join("?" * len(names))
    query = (
        f"SELECT {COLUMNS} FROM events WHERE ts >= ? AND event IN ({placeholders})"
        f" ORDER BY seq DESC LIMIT {MAX_EVENTS}"
    )
    try:
        with closing(connect_read_only(home.journal_db)) as database:
            rows = database.execute(query, (since, *names)).fetchall()
    except sqlite3.Error:
        return []
    return [event_from_row(row) for row in rows][::-1]
