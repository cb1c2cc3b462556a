"""The newest events of the agent's journal, read beside a living agent or without one. Nothing is written."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from host_agent.journal import event_from_row
from vestal.config import Home

LIMIT = 5000


def events(home: Home, names: Sequence[str], since: float) -> list[dict[str, Any]]:
    """Those of these names, oldest first; none where there is no journal, or one that `damage` tells of."""
    wanted = ",".join("?" * len(names))
    query = (
        "SELECT seq, ts, component, event, cause, fields FROM events"
        f" WHERE ts >= ? AND event IN ({wanted}) ORDER BY seq DESC LIMIT {LIMIT}"
    )
    try:
        with closing(_open(home.journal_db)) as database:
            rows = database.execute(query, (since, *names)).fetchall()
    except sqlite3.Error:
        return []
    return [event_from_row(row) for row in rows][::-1]


def damage(home: Home) -> str:
    """What is wrong with the file; empty where nothing is, or where there is none."""
    if not home.journal_db.exists():
        return ""
    try:
        with closing(_open(home.journal_db)) as database:
            told = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return "" if told == "ok" else told


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
