"""Store what each of the orchestrator's cycles did. A cycle is a periodic round that checks the backends,
counts the unfinished tasks, and embeds changed files of the agents' knowledge.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.storage.database import Database

MAX_CYCLES = 5000  # 17 days with one cycle each 300 s


class CycleStore:
    """The records of the cycles in the database. Its methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, started_at: float, finished_at: float, trigger: str, record: dict[str, Any]) -> int:
        """Store one cycle, delete the oldest beyond MAX_CYCLES, and return the new cycle's id. Times are in
        seconds since the epoch.
        """
        with self._database.connect() as db:
            added = db.execute(
                "INSERT INTO cycles (started_at, finished_at, trigger, record) VALUES (?, ?, ?, ?)"
                " RETURNING id",
                (started_at, finished_at, trigger, json.dumps(record)),
            ).fetchall()
            cycle_id = int(added[0]["id"])
            db.execute("DELETE FROM cycles WHERE id <= ?", (cycle_id - MAX_CYCLES,))
        return cycle_id

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """Return the records of the last `limit` cycles, the newest first."""
        with self._database.connect() as db:
            rows = db.execute("SELECT * FROM cycles ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [
            {
                "id": row["id"],
                "started_at": row["started_at"],
                "finished_at": row["finished_at"],
                "duration_s": round(row["finished_at"] - row["started_at"], 3),
                "trigger": row["trigger"],
                **json.loads(row["record"]),
            }
            for row in rows
        ]
