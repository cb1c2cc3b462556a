"""The newest events of the agent's journal, read beside a living agent or without one. Nothing is written."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from host_agent.config import Home
from host_agent.journal import as_json

LIMIT = 5000


class Damaged(Exception):
    """The file is there and cannot be read; the message says why."""


def events(home: Home, names: Sequence[str], since: float) -> list[dict[str, Any]]:
    """Those of these names, oldest first; none where there is no journal. Raises Damaged."""
    path = home.journal_db
    if not path.exists():
        return []
    wanted = ",".join("?" * len(names))
    query = (
        "SELECT seq, ts, component, event, cause, fields FROM events"
        f" WHERE ts >= ? AND event IN ({wanted}) ORDER BY seq DESC LIMIT {LIMIT}"
    )
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            rows = database.execute(query, (since, *names)).fetchall()
    except sqlite3.Error as error:
        raise Damaged(f"{path}: {error}") from error
    return [as_json(row) for row in rows][::-1]
