"""The database in which DBOS stores the tasks, and the name under which this process works on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.storage.sqlite import move_aside_if_corrupt
from orchestrator.workers.membership import Membership

WAIT_FOR_CONNECTION_S = 86_400.0  # beyond this, DBOS backs off by itself: see PatientConnect


class TaskDatabase(Protocol):
    """What the task queue needs of SQLite or Postgres."""

    @property
    def url(self) -> str:
        """Return the SQLAlchemy URL."""
        ...

    @property
    def executor(self) -> str:
        """Return the name under which this process takes tasks. It is the same after a restart."""
        ...

    @property
    def max_active(self) -> int | None:
        """Return how many tasks all workers together may run; None: only each worker's own limit."""
        ...

    @property
    def sqlalchemy_options(self) -> dict[str, Any]:
        """Return keyword arguments for SQLAlchemy's create_engine."""
        ...

    @property
    def exists(self) -> bool:
        """Return False if there cannot have been a task yet."""
        ...

    def prepare(self) -> str:
        """Prepare the database before DBOS opens it. Return a notice about a repair, or ""."""
        ...

    def opened(self) -> None:
        """Note that DBOS has opened the database."""
        ...

    def ping(self) -> None:
        """Raise DatabaseFailed if the database does not answer.

        DBOS itself would block a thread until it does.
        """
        ...

    def has_tasks(self) -> bool:
        """Return True if there has ever been a task. Creates no file and no table."""
        ...

    def forget(self, tasks: list[str]) -> None:
        """Delete what is stored besides DBOS's tables about these deleted tasks."""
        ...

    def given_up(self, tasks: list[str]) -> set[str]:
        """Return those tasks that were cancelled because too many workers died while they ran."""
        ...


@dataclass(frozen=True)
class SqliteTasks:
    """A SQLite file for DBOS alone, used by one orchestrator."""

    path: Path
    executor: str = "orchestrator"
    max_active: int | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def sqlalchemy_options(self) -> dict[str, Any]:
        return {}

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def prepare(self) -> str:
        notice = move_aside_if_corrupt(self.path)
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode = WAL")  # stored in the file; readers never wait for a writer
        connection.close()
        return notice

    def opened(self) -> None:
        pass

    def ping(self) -> None:
        pass

    def has_tasks(self) -> bool:
        if not self.path.exists():
            return False
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'").fetchone()
        return found is not None

    def forget(self, tasks: list[str]) -> None:
        """Do nothing: DBOS's tables are all there is."""

    def given_up(self, tasks: list[str]) -> set[str]:
        return set()


@dataclass(frozen=True)
class PostgresTasks:
    """DBOS's schema `dbos` in the Postgres that all workers share."""

    connect: PatientConnect
    membership: Membership
    max_active: int | None
    exists: bool = True

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
        """Register this worker. DBOS then resumes the tasks that ran here when the worker died."""
        self.membership.join()
        return ""

    def opened(self) -> None:
        self.connect.patient = True

    def ping(self) -> None:
        self.membership.ping()

    def has_tasks(self) -> bool:
        return self.membership.tasks_exist()

    def forget(self, tasks: list[str]) -> None:
        self.membership.forget(tasks)

    def given_up(self, tasks: list[str]) -> set[str]:
        return self.membership.given_up(tasks)
