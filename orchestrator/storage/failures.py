"""Classify why a database cannot be used, whichever library reports it, and name the remedy.

SQLite, Postgres and the connections of DBOS use this one classification, so that the same fault has the same
effect everywhere: the API answers 503, and the workers and the orchestrator's cycles (its periodic rounds of
checks and work) wait.
"""

from __future__ import annotations

import errno
import sqlite3
from enum import StrEnum


class FailureCause(StrEnum):
    """The reasons why a database cannot be used."""

    FULL = "full"
    READ_ONLY = "read_only"
    LOCKED = "locked"
    DAMAGED = "damaged"
    DISK = "disk"  # it cannot be opened, read or written
    AWAY = "away"  # its server does not answer, or is still starting
    OTHER = "other"


WAITED_FOR = frozenset({FailureCause.FULL, FailureCause.READ_ONLY, FailureCause.DISK})
"""Causes that a person removes while the processes run. For locks and absent servers, the libraries
themselves wait.
"""

ADVICE = {
    FailureCause.FULL: "free some space on its disk; then it is used again by itself",
    FailureCause.READ_ONLY: "make it writable; then it is used again by itself",
    FailureCause.LOCKED: "another program holds it; ask again soon",
    FailureCause.DAMAGED: "it is repaired, or put aside and made anew; ask again soon",
    FailureCause.DISK: "see whether its folder is there and can be written",
    FailureCause.AWAY: "see whether its server runs; it is used again by itself",
    FailureCause.OTHER: "ask again soon",
}
SQLITE_CAUSES = {
    sqlite3.SQLITE_FULL: FailureCause.FULL,
    sqlite3.SQLITE_READONLY: FailureCause.READ_ONLY,
    sqlite3.SQLITE_BUSY: FailureCause.LOCKED,
    sqlite3.SQLITE_LOCKED: FailureCause.LOCKED,
    sqlite3.SQLITE_CORRUPT: FailureCause.DAMAGED,
    sqlite3.SQLITE_NOTADB: FailureCause.DAMAGED,
    sqlite3.SQLITE_IOERR: FailureCause.DISK,
    sqlite3.SQLITE_CANTOPEN: FailureCause.DISK,
    sqlite3.SQLITE_PERM: FailureCause.DISK,
}
"""The causes by SQLite's primary result codes."""

POSTGRES_CAUSES = {
    "53100": FailureCause.FULL,  # disk_full
    "25006": FailureCause.READ_ONLY,  # read_only_sql_transaction: a standby
    "55P03": FailureCause.LOCKED,  # lock_not_available
    "57014": FailureCause.LOCKED,  # query_canceled, by a time limit
    "40": FailureCause.LOCKED,  # serialization failures and deadlocks
    "XX001": FailureCause.DAMAGED,  # data_corrupted
    "XX002": FailureCause.DAMAGED,  # index_corrupted
    "58": FailureCause.DISK,  # system_error, such as io_error
    "08": FailureCause.AWAY,  # connection exceptions
    "57": FailureCause.AWAY,  # operator intervention: it shuts down, or starts
    "53": FailureCause.AWAY,  # insufficient resources: no memory, no connection left
}
"""The causes by SQLSTATE, or by its class, which is its first two characters."""

OS_CAUSES = {
    errno.ENOSPC: FailureCause.FULL,
    errno.EDQUOT: FailureCause.FULL,
    errno.EROFS: FailureCause.READ_ONLY,
    errno.EIO: FailureCause.DISK,
}


def cause_of(error: BaseException) -> FailureCause | None:
    """Return why the database failed; None if the exception is not about a database, and therefore is
    a bug.
    """
    original = getattr(error, "orig", None)  # SQLAlchemy's errors have the driver's error in `orig`
    if isinstance(original, BaseException):
        error = original
    if isinstance(error, sqlite3.ProgrammingError):
        return None
    if isinstance(error, sqlite3.Error):
        return SQLITE_CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, FailureCause.OTHER)
    if type(error).__module__.partition(".")[0] in ("psycopg", "psycopg_pool"):
        state = getattr(error, "sqlstate", None) or "08"  # a refused connection has no SQLSTATE
        return POSTGRES_CAUSES.get(state, POSTGRES_CAUSES.get(state[:2], FailureCause.OTHER))
    if type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ == "TimeoutError":
        return FailureCause.AWAY  # no connection of SQLAlchemy's pool became free in time
    return OS_CAUSES.get(error.errno or 0) if isinstance(error, OSError) else None


def newer_tables(name: str, version: int, known: int, setting: str) -> str:
    """Return an error message for the database `name`, whose tables a newer version of Vestal has written.
    They have version `version`, while this program knows only versions up to `known`. The message names the
    environment variable `setting`, by which the user can choose another database.
    """
    return (
        f"{name} was written by a newer version of Vestal (its tables have version {version}, and this"
        f" program knows only {known}): install that version again, or set {setting} to another place."
    )
