"""Implement the database as the SQLite file orchestrator.db, in WAL mode. Two services of one machine share
it: the orchestrator's API service, and the nightly service, which works on the agents' knowledge each night.

Each operation opens a connection. This takes 0.2 ms, avoids sharing connections between threads, and finds
the new file if the other service has moved a corrupt one aside.
"""

from __future__ import annotations

import errno
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import ConfigError, DatabaseFailed, NewerDatabase
from orchestrator.storage import sqlite_compaction, sqlite_schema
from orchestrator.storage.database import ANSWERING, Database
from orchestrator.storage.failures import ADVICE, FailureCause, cause_of, newer_tables
from orchestrator.storage.sqlite_file import (
    BUSY_TIMEOUT_S,
    QUICK_CHECK_ANY_SIZE,
    locked,
    move_aside_if_corrupt,
    rebuild_index,
)
from vestal.best_effort.disks import find_obstacle
from vestal.best_effort.files import create_private_file

ANSWER_TIMEOUT_S = 5.0  # while a client waits for an answer


class SqliteDatabase(Database):
    """Implements `Database` with one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.notices: list[str] = []
        self._checked = False

    def prepare(self) -> None:
        """Create the folder and the tables. A corrupt file is moved aside first.

        Raises OSError if the folder cannot be created, ConfigError if a newer version of Vestal wrote the
        file, and DatabaseFailed if the file cannot be used for now.
        """
        self._make_folder()
        try:
            with self.connect():
                pass
        except NewerDatabase as error:
            raise ConfigError(error.message) from None

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Open a connection for one operation, and commit, or roll back after an exception, at the end.

        Raises DatabaseFailed if the file cannot be used. If it turns out to be corrupt, it is moved aside, so
        that the next operation creates a new one.
        """
        try:
            connection = self._open()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        try:
            with connection:
                yield connection
        except sqlite3.Error as error:
            connection.close()
            self._fail(error)
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        """Return a connection to the file, with its tables created. Raises sqlite3.Error or OSError if the
        file cannot be used, and NewerDatabase if a newer version of Vestal wrote it.
        """
        self._make_folder()
        if not self._checked:
            if notice := move_aside_if_corrupt(self.path):
                self.notices.append(notice)
            self._checked = True
        create_private_file(self.path)
        timeout_s = ANSWER_TIMEOUT_S if ANSWERING.get() else BUSY_TIMEOUT_S
        connection = sqlite3.connect(self.path, timeout=timeout_s)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            version, known = _version(connection), len(sqlite_schema.VERSIONS)
            if version > known:
                raise NewerDatabase(newer_tables(str(self.path), version, known, "VESTAL_HOME"))
            if version < known:
                _upgrade(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_folder(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        cause = cause_of(error)
        return None if cause is None else sqlite_failure(self.path, error, cause)

    def _fail(self, error: sqlite3.Error | OSError) -> NoReturn:
        """Raise DatabaseFailed for this error; a sqlite3.Error that is a bug is raised unchanged. If the
        error says that the file is damaged, first move the file aside, or rebuild the full-text index if only
        that is damaged.
        """
        cause = cause_of(error)
        if cause is FailureCause.DAMAGED:
            with suppress(sqlite3.Error, OSError):
                self._repair()
        if cause is None and isinstance(error, sqlite3.Error):
            raise error
        raise sqlite_failure(self.path, error, cause or FailureCause.DISK) from error

    def _repair(self) -> None:
        notice = move_aside_if_corrupt(self.path, QUICK_CHECK_ANY_SIZE)
        if notice:
            self.notices.append(notice)
            return
        # The tables are intact, so the full-text index is damaged, which SQLite before 3.44 does not check.
        self.notices.append(rebuild_index(self.path))

    def close(self) -> None:
        """Do nothing, because each operation closes its own connection."""

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        with ExitStack() as stack:
            try:
                got = stack.enter_context(locked(self.path.with_name(f"{name}.lock"), blocking=False))
            except OSError as error:
                self._fail(error)
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


def sqlite_failure(path: Path, error: BaseException, cause: FailureCause) -> DatabaseFailed:
    """Return the error about the SQLite file at `path` for a library's exception, with the remedy for
    `cause`.
    """
    if cause is FailureCause.DISK:
        cause = _cause_by_disk(path.parent)
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    return DatabaseFailed(f"{path} cannot be used ({reason}): {ADVICE[cause]}.")


def _cause_by_disk(folder: Path) -> FailureCause:
    """Return what is wrong with the disk of `folder`: READ_ONLY, FULL, or DISK for any other fault. SQLite
    itself reports all of them as "disk I/O error" or "unable to open".
    """
    match find_obstacle(folder):
        case OSError(errno=errno.EROFS):
            return FailureCause.READ_ONLY
        case OSError(errno=errno.ENOSPC):
            return FailureCause.FULL
    return FailureCause.DISK
