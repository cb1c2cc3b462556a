"""What keeps orchestrator.db small: the full-text index is merged, and an emptied file rewritten."""

from __future__ import annotations

import sqlite3

from orchestrator.events import emit

WORTH_IT_BYTES = 8 * 2**20
WORTH_IT_SHARE = 0.25


def compact(db: sqlite3.Connection) -> int:
    """Returns the bytes given back to the disk."""
    with db:
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
    db.execute("PRAGMA optimize")
    free_bytes = _free_bytes(db)
    if free_bytes and not _rewritten(db):
        free_bytes = 0
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return free_bytes


def _free_bytes(db: sqlite3.Connection) -> int:
    """The empty pages' size, where it is worth the rewriting; else 0."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return free * size if free * size >= WORTH_IT_BYTES and free >= WORTH_IT_SHARE * pages else 0


def _rewritten(db: sqlite3.Connection) -> bool:
    try:
        db.execute("VACUUM")  # to a temporary file first: a kill or a full disk leaves the old one whole
    except sqlite3.OperationalError as error:
        emit("database_not_compacted", str(error))
        return False
    return True
