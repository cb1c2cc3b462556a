"""orchestrator.db: SQLite in WAL mode, shared by the orchestrator and nightly of one machine.

Each operation opens a connection. This costs 0.2 ms, avoids sharing between threads, and finds the new file
if the other service has moved a corrupt one aside.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.storage import sqlite_compaction, sqlite_schema
from orchestrator.storage.database import Database

BUSY_TIMEOUT_S = 30.0
QUICK_CHECK_UP_TO_BYTES = 64 * 2**20  # takes about 0.1 s; larger files get only the cheap check
QUICK_CHECK_ANY_SIZE = float("inf")

# SQLite's primary result codes for a damaged file
CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SqliteDatabase(Database):
    """Implements `Database` with one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.notices: list[str] = []

    def prepare(self) -> None:
        """Create the folder and the tables. A corrupt file is moved aside first."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        notice = move_aside_if_corrupt(self.path)
        if notice:
            self.notices.append(notice)
        with self.connect():
            pass

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Open a connection. If the file turns out to be corrupt, move it aside for the next operation."""
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            if _version(connection) < len(sqlite_schema.VERSIONS):
                _upgrade(connection)
            with connection:
                yield connection
        except sqlite3.DatabaseError as error:
            connection.close()
            if _is_corruption(error):
                self._repair()
            raise DatabaseFailed(f"{self.name} cannot be used ({error}).") from error
        finally:
            connection.close()

    def _repair(self) -> None:
        notice = move_aside_if_corrupt(self.path, QUICK_CHECK_ANY_SIZE)
        if notice:
            self.notices.append(notice)
            return
        # The tables are intact, so the full-text index is damaged; it can be rebuilt from them.
        with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)) as db, db:
            db.execute("INSERT INTO words (words) VALUES ('rebuild')")
        self.notices.append(f"the full-text index of {self.path.name} was damaged and has been rebuilt")

    def close(self) -> None:
        """Do nothing: each operation closes its own connection."""

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        with locked(self.path.with_name(f"{name}.lock"), blocking=False) as got:
            yield got

    def compact(self) -> int:
        with self.connect() as db:
            return sqlite_compaction.compact(db)

    def packed(self, vector: list[float]) -> bytes:
        return array("f", vector).tobytes()

    def unpacked(self, value: bytes) -> list[float]:
        return array("f", value).tolist()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _upgrade(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # the other service may upgrade at the same time
        for statements in sqlite_schema.VERSIONS[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(sqlite_schema.VERSIONS)}")


def _is_corruption(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in CORRUPT


def move_aside_if_corrupt(path: Path, check_up_to_bytes: float = QUICK_CHECK_UP_TO_BYTES) -> str:
    """Rename a corrupt SQLite file. Return a sentence about it, or "" if the file is intact."""
    if not path.exists():
        return ""
    with locked(path.with_name(path.name + ".lock")):
        problem = _corruption(path, check_up_to_bytes)
        if not problem:
            return ""
        kept = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
    notice = f"{path.name} was corrupt ({problem}); it was renamed to {kept.name}, and a new file was created"
    emit("database_moved_aside", problem, path=str(path), kept=str(kept))
    return notice


def _corruption(path: Path, check_up_to_bytes: float) -> str:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if path.stat().st_size <= check_up_to_bytes:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return "" if verdict == "ok" else str(verdict)
        return ""
    except sqlite3.OperationalError as error:
        # "disk I/O error", "unable to open", "locked": the file may be intact, so leave it.
        emit("database_not_checked", str(error), path=str(path))
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


@contextmanager
def locked(path: Path, blocking: bool = True) -> Iterator[bool]:
    """Hold a file lock that the kernel frees when this process dies. Yield False if it is taken."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
