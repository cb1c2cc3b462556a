"""Read the newest events of the agent's journal, whether or not the agent runs. Nothing is written."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from host_agent.journal import COLUMNS, event_from_row
from vestal.config import Home

MAX_EVENTS = 5000


def events(home: Home, names: Sequence[str], since: float) -> list[dict[str, Any]]:
    """Return the events with these names since a time in seconds since 1970, oldest first.

    The list is empty where there is no journal, or where it is damaged (see `damage`).
    """
    placeholders = ",".join("?" * len(names))
    query = (
        f"SELECT {COLUMNS} FROM events WHERE ts >= ? AND event IN ({placeholders})"
        f" ORDER BY seq DESC LIMIT {MAX_EVENTS}"
    )
    try:
        with closing(_open_read_only(home.journal_db)) as database:
            rows = database.execute(query, (since, *names)).fetchall()
    except sqlite3.Error:
        return []
    return [event_from_row(row) for row in rows][::-1]


def damage(home: Home) -> str:
    """Return what is wrong with the journal's file; empty where it is intact, or where there is none."""
    if not home.journal_db.exists():
        return ""
    try:
        with closing(_open_read_only(home.journal_db)) as database:
            result = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return "" if result == "ok" else result


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
