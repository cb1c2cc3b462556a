"""Describe the database in which DBOS stores the tasks, and the name under which this process works
on them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import DatabaseFailed
from orchestrator.storage.failures import FailureCause, cause_of
from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.storage.sqlite import sqlite_failure
from orchestrator.storage.sqlite_file import QUICK_CHECK_ANY_SIZE, move_aside_if_corrupt
from orchestrator.workers.membership import Membership
from vestal.best_effort.files import create_private_file

CHECK_TIMEOUT_S = 5.0
WAIT_FOR_CONNECTION_S = 86_400.0  # beyond this, DBOS backs off by itself: see PatientConnect


class TaskDatabase(Protocol):
    """What the task queue needs from the database in which DBOS stores the tasks, SQLite or Postgres."""

    @property
    def url(self) -> str:
        """Return the URL by which SQLAlchemy connects to the database."""
        ...

    @property
    def executor(self) -> str:
        """Return the name under which this process takes tasks. The name is the same after a restart."""
        ...

    @property
    def max_active(self) -> int | None:
        """Return how many tasks all workers together may run; None if only each worker's own limit
        applies.
        """
        ...

    @property
    def sqlalchemy_options(self) -> dict[str, Any]:
        """Return keyword arguments for SQLAlchemy's create_engine."""
        ...

    @property
    def exists(self) -> bool:
        """Return whether the database exists. If it does not, there cannot have been a task yet."""
        ...

    def prepare(self) -> str:
        """Prepare the database before DBOS opens it. Return a notice about a repair; "" if there was none.
        Raises DatabaseFailed if the database cannot be used.
        """
        ...

    def opened(self) -> None:
        """Record that DBOS has opened the database. From now on, `is_lost` detects that a SQLite file was
        moved or deleted, and a new connection to Postgres waits for a server that is away instead of raising.
        """
        ...

    def ping(self) -> None:
        """Raise DatabaseFailed if the database does not answer. DBOS itself would block a thread until it
        does.
        """
        ...

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        """Convert a database library's exception to DatabaseFailed; None if the exception is not about this
        database.
        """
        ...

    def check_writable(self) -> None:
        """Raise DatabaseFailed if the database cannot be written."""
        ...

    def damaged(self) -> None:
        """Check the database's file, after an error that reported damage, and move the file aside if it is
        corrupt. If DBOS had opened the file, `is_lost` is then True, so that the process restarts and creates
        an empty file. With Postgres, do nothing.
        """
        ...

    @property
    def is_lost(self) -> bool:
        """Return True if DBOS works on a file that was moved or deleted, so that the work of this process
        would be lost.
        """
        ...

    def has_tasks(self) -> bool:
        """Return True if there may have been a task, because DBOS has created its tables. Creates no file and
        no table.
        """
        ...

    def forget(self, tasks: list[str]) -> None:
        """Delete what is stored about these deleted tasks outside of DBOS's tables."""
        ...

    def given_up(self, tasks: list[str]) -> set[str]:
        """Return those of the tasks that were cancelled because too many workers died while running them."""
        ...


class SqliteTasks:
    """Implements `TaskDatabase` with a SQLite file that only DBOS uses, for one orchestrator without other
    workers. `max_active` is None, because only the worker's own limit applies.
    """

    executor = "orchestrator"
    max_active: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened_inode: int | None = None

    @property
    def url(self) -> str:
        from sqlalchemy import URL  # only when DBOS needs it, as it takes memory and time

        return URL.create("sqlite", database=str(self.path)).render_as_string()

    @property
    def sqlalchemy_options(self) -> dict[str, Any]:
        return {}

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def prepare(self) -> str:
        try:
            notice = move_aside_if_corrupt(self.path)
            create_private_file(self.path)
            with closing(sqlite3.connect(self.path)) as connection:
                connection.execute(
                    "PRAGMA journal_mode = WAL"
                )  # stored in the file; readers wait for no writer
        except (sqlite3.Error, OSError) as error:
            raise sqlite_failure(self.path, error, cause_of(error) or FailureCause.DISK) from error
        return notice

    def opened(self) -> None:
        self._opened_inode = _inode(self.path)

    def ping(self) -> None:
        if self.is_lost:
            raise DatabaseFailed(
                f"{self.path} was put aside or deleted while it was in use; the orchestrator restarts, and"
                " begins it anew."
            )

    @property
    def is_lost(self) -> bool:
        return self._opened_inode is not None and _inode(self.path) != self._opened_inode

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        cause = cause_of(error)
        return None if cause is None else sqlite_failure(self.path, error, cause)

    def check_writable(self) -> None:
        """Raise DatabaseFailed if the file cannot be written. The test writes the file's `user_version` again
        with the same value, which changes nothing but makes SQLite write a page.
        """
        try:
            with self._connected("rw") as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                db.execute(f"PRAGMA user_version = {int(version)}")
        except sqlite3.Error as error:
            raise self.failure(error) or error from error

    def _connected(self, mode: str) -> closing[sqlite3.Connection]:
        """Return a connection with SQLite's `mode`, "ro" or "rw", which the end of a `with` block closes. In
        neither mode is a file that was deleted created again.
        """
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return closing(sqlite3.connect(uri, uri=True, timeout=CHECK_TIMEOUT_S))

    def damaged(self) -> None:
        with contextlib.suppress(OSError, sqlite3.Error):
            move_aside_if_corrupt(self.path, QUICK_CHECK_ANY_SIZE)

    def has_tasks(self) -> bool:
        if not self.path.exists():
            return False
        try:
            with self._connected("ro") as db:
                found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'").fetchone()
        except sqlite3.Error as error:
            raise self.failure(error) or error from error
        return found is not None

    def forget(self, tasks: list[str]) -> None:
        """Do nothing, because nothing is stored outside of DBOS's tables."""

    def given_up(self, tasks: list[str]) -> set[str]:
        return set()


@dataclass(frozen=True)
class PostgresTasks:
    """Implements `TaskDatabase` with DBOS's schema `dbos` in the Postgres that all workers share.

    `connect` opens DBOS's connections, `membership` is this process's row in the table of workers, and
    `max_active` is how many tasks all workers together may run (None: no common limit). `exists` and
    `is_lost` are constant, because the server's database always exists, and DBOS has no file that could be
    moved or deleted.
    """

    connect: PatientConnect
    membership: Membership
    max_active: int | None
    exists: bool = True
    is_lost: bool = False

    @property
    def url(self) -> str:
        return self.connect.url

    @property
    def sqlalchemy_options(self) -> dict[str, Any]:
        return {"creator": self.connect, "pool_timeout": WAIT_FOR_CONNECTION_S, "pool_pre_ping": True}

    @property
    def executor(self) -> str:
        return self.membership.worker

    def prepare(self) -> str:
        """Register this worker in the table of workers. DBOS then resumes the tasks that this worker was
        running when it died. Return "", because nothing is repaired.
        """
        self.membership.join()
        return ""

    def opened(self) -> None:
        self.connect.patient = True

    def ping(self) -> None:
        self.membership.ping()

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        return self.membership.failure(error)

    def check_writable(self) -> None:
        self.membership.check_writable()

    def damaged(self) -> None:
        """Do nothing, because a damaged server has to be repaired by its administrator."""

    def has_tasks(self) -> bool:
        return self.membership.tasks_exist()

    def forget(self, tasks: list[str]) -> None:
        self.membership.forget(tasks)

    def given_up(self, tasks: list[str]) -> set[str]:
        return self.membership.given_up(tasks)


def _inode(path: Path) -> int | None:
    """Return the number that distinguishes this file from a later one with the same name; None if there is no
    file.
    """
    try:
        return path.stat().st_ino
    except OSError:
        return None
