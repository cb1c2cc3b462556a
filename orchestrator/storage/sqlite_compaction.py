"""Keep the SQLite file orchestrator.db small: merge the segments of its full-text index, and rewrite the
file (VACUUM) if much of it is unused.
"""

from __future__ import annotations

import sqlite3

from orchestrator.events import emit

MIN_FREE_BYTES = 8 * 2**20
MIN_FREE_SHARE = 0.25


def compact(db: sqlite3.Connection) -> int:
    """Compact the database. Return how many bytes were returned to the disk."""
    with db:
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
    db.execute("PRAGMA optimize")
    free_bytes = _free_bytes(db)
    if free_bytes and not _rewritten(db):
        free_bytes = 0
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return free_bytes


def _free_bytes(db: sqlite3.Connection) -> int:
    """Return the bytes of the free pages if rewriting the file is worthwhile, else 0."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return free * size if free * size >= MIN_FREE_BYTES and free >= MIN_FREE_SHARE * pages else 0


def _rewritten(db: sqlite3.Connection) -> bool:
    try:
        db.execute(
            "VACUUM"
        )  # writes a temporary file first, so a kill or a full disk leaves the old file intact
    except sqlite3.OperationalError as error:
        emit("database_not_compacted", str(error))
        return False
    return True
