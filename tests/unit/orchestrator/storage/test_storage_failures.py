"""One mapping of what SQLite, psycopg, SQLAlchemy and the system report to why a database cannot be used."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import psycopg_pool
import pytest
from sqlalchemy import exc

from orchestrator.errors import DatabaseFailed
from orchestrator.storage.failures import ADVICE, FailureCause, cause_of
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.sqlite import SqliteDatabase


def sqlite(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("as SQLite says it")
    error.sqlite_errorcode = code
    return error


CASES = [
    (sqlite(sqlite3.SQLITE_FULL), FailureCause.FULL),
    (sqlite(sqlite3.SQLITE_READONLY), FailureCause.READ_ONLY),
    (sqlite(sqlite3.SQLITE_READONLY_DIRECTORY), FailureCause.READ_ONLY),
    (sqlite(sqlite3.SQLITE_BUSY), FailureCause.LOCKED),
    (sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), FailureCause.LOCKED),
    (sqlite(sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError), FailureCause.DAMAGED),
    (sqlite(sqlite3.SQLITE_NOTADB, sqlite3.DatabaseError), FailureCause.DAMAGED),
    (sqlite(sqlite3.SQLITE_IOERR_SHMSIZE), FailureCause.DISK),
    (sqlite(sqlite3.SQLITE_CANTOPEN), FailureCause.DISK),
    (sqlite(sqlite3.SQLITE_ERROR), FailureCause.OTHER),
    (psycopg.errors.DiskFull(), FailureCause.FULL),
    (psycopg.errors.ReadOnlySqlTransaction(), FailureCause.READ_ONLY),
    (psycopg.errors.LockNotAvailable(), FailureCause.LOCKED),
    (psycopg.errors.DeadlockDetected(), FailureCause.LOCKED),
    (psycopg.errors.DataCorrupted(), FailureCause.DAMAGED),
    (psycopg.errors.IoError(), FailureCause.DISK),
    (psycopg.errors.AdminShutdown(), FailureCause.AWAY),
    (psycopg.errors.TooManyConnections(), FailureCause.AWAY),
    (psycopg.OperationalError("connection refused"), FailureCause.AWAY),
    (psycopg_pool.PoolTimeout(), FailureCause.AWAY),
    (psycopg.errors.UndefinedTable(), FailureCause.OTHER),
    (exc.OperationalError("INSERT", {}, sqlite(sqlite3.SQLITE_FULL)), FailureCause.FULL),
    (exc.InternalError("INSERT", {}, psycopg.errors.ReadOnlySqlTransaction()), FailureCause.READ_ONLY),
    (exc.TimeoutError(), FailureCause.AWAY),
    (OSError(errno.ENOSPC, "No space left on device"), FailureCause.FULL),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), FailureCause.FULL),
    (OSError(errno.EROFS, "Read-only file system"), FailureCause.READ_ONLY),
    (OSError(errno.EIO, "Input/output error"), FailureCause.DISK),
    (sqlite3.ProgrammingError("Cannot operate on a closed database."), None),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None),
    (ValueError("a bug"), None),
    (DatabaseFailed("said already"), None),
]


@pytest.mark.parametrize(("error", "cause"), CASES, ids=lambda value: type(value).__name__)
def test_cause_of_a_database_error_is_the_same_whichever_library_reports_it(
    error: BaseException, cause: FailureCause | None
):
    assert cause_of(error) is cause


def test_every_cause_of_a_database_failure_has_advice():
    assert set(ADVICE) == set(FailureCause)


def test_postgres_failure_has_the_advice_and_not_the_password():
    database = PostgresDatabase("postgresql://vestal:s3cret-pw@db.example/vestal")
    refused = psycopg.OperationalError("connection failed: password s3cret-pw")
    found = database.failure(exc.OperationalError("SELECT", {}, refused))
    assert found is not None
    assert "Postgres at db.example:5432/vestal cannot be used (connection failed: password (hidden)" in str(
        found
    )
    assert "see whether its server runs" in str(found)
    full = database.failure(psycopg.errors.DiskFull("could not extend file: No space left on device"))
    assert "free some space on the server's disk" in str(full)
    assert database.failure(ValueError("a bug")) is None


def test_error_message_of_a_sqlite_failure_names_the_database_file_and_says_what_to_do(tmp_path: Path):
    database = SqliteDatabase(tmp_path / "orchestrator.db")
    found = database.failure(sqlite(sqlite3.SQLITE_FULL))
    path = tmp_path / "orchestrator.db"
    assert str(found) == f"{path} cannot be used (as SQLite says it): {ADVICE[FailureCause.FULL]}."
    assert database.failure(ValueError("a bug")) is None


def test_sqlite_file_deleted_with_its_folder_is_created_again(tmp_path: Path):
    database = SqliteDatabase(tmp_path / "home" / "orchestrator.db")
    database.prepare()
    database.set_meta("a", "1")
    for path in database.path.parent.iterdir():
        path.unlink()
    database.path.parent.rmdir()
    assert database.meta("a") is None
    with closing(sqlite3.connect(database.path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_sqlite_database_whose_folder_is_a_file_fails_with_the_reason(tmp_path: Path):
    (tmp_path / "home").write_text("")
    with pytest.raises(DatabaseFailed, match="see whether its folder is there"):
        SqliteDatabase(tmp_path / "home" / "orchestrator.db").meta("a")


@pytest.mark.parametrize(
    ("files", "flags", "cause"),
    [
        (1, 0, FailureCause.DISK),  # exFAT on macOS, whose files are not counted
        (65_536, 0, FailureCause.FULL),
        (65_536, os.ST_RDONLY, FailureCause.READ_ONLY),
    ],
)
def test_cause_of_a_sqlite_disk_error_is_a_full_disk_only_if_the_file_system_counts_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: int, flags: int, cause: FailureCause
):
    figures = (4096, 4096, 2**21, 2**20, 2**20, files, 0, 0, flags, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(figures))
    found = SqliteDatabase(tmp_path / "orchestrator.db").failure(sqlite(sqlite3.SQLITE_CANTOPEN))
    assert str(found).endswith(f": {ADVICE[cause]}.")
