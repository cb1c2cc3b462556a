"""orchestrator.db: SQLite in WAL, shared by the orchestrator and nightly.

A connection lives for one operation: it costs 0.2 ms, is never shared between threads, and finds the new
file where a corrupt one was moved aside by the other service.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .events import emit

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0
QUICK_CHECK_UP_TO_BYTES = 64 * 2**20  # some 0.1 s; larger ones get the cheap check alone

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cycles (
    id INTEGER PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL NOT NULL,
    trigger TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, agent TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, model TEXT NOT NULL, UNIQUE (agent, path));
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, text_sha TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_by_file ON chunks (file_id);
CREATE INDEX IF NOT EXISTS chunks_by_text ON chunks (text_sha);
CREATE TABLE IF NOT EXISTS vectors (
    text_sha TEXT NOT NULL, model TEXT NOT NULL, dim INTEGER NOT NULL, vector BLOB NOT NULL,
    made_at REAL NOT NULL, PRIMARY KEY (text_sha, model)) WITHOUT ROWID;
"""


class Database:
    """One SQLite file. `notices` says in words what had to be done to open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []

    def prepare(self) -> None:
        """Make the folder and the tables; a corrupt file is moved aside first."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        notice = move_aside_if_corrupt(self.path)
        if notice:
            self.notices.append(notice)
        with self.connect():
            pass

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A connection for one operation, committed at the end or rolled back on an error."""
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
                )
            with connection:
                yield connection
        finally:
            connection.close()

    def meta(self, key: str) -> str | None:
        with self.connect() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        with self.connect() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def move_aside_if_corrupt(path: Path) -> str:
    """Rename a file that is no sound SQLite database; returns the sentence that says so, or ""."""
    if not path.exists():
        return ""
    with locked(path.with_name(path.name + ".lock")):
        problem = _corruption(path)
        if not problem:
            return ""
        kept = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
    notice = f"{path.name} was corrupt ({problem}); it is kept as {kept.name} and a new one was begun"
    emit("database_moved_aside", problem, path=str(path), kept=str(kept))
    return notice


def _corruption(path: Path) -> str:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if path.stat().st_size <= QUICK_CHECK_UP_TO_BYTES:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return "" if verdict == "ok" else str(verdict)
        return ""
    except sqlite3.OperationalError as error:
        # "disk I/O error", "unable to open", "locked": the file may well be sound; never throw it away.
        emit("database_not_checked", str(error), path=str(path))
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


@contextmanager
def locked(path: Path, blocking: bool = True) -> Iterator[bool]:
    """Hold a lock that the kernel frees when its holder dies; yields whether it was got."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
