"""Where DBOS keeps the tasks, and as whom it works on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.storage.sqlite import move_aside_if_corrupt
from orchestrator.workers.membership import Membership

WAIT_FOR_CONNECTION_S = 86_400.0  # past it, DBOS backs off: see PatientConnect


class TaskDatabase(Protocol):
    @property
    def url(self) -> str: ...

    @property
    def executor(self) -> str:
        """The name under which tasks are taken, the same after a restart."""
        ...

    @property
    def most_at_once(self) -> int | None:
        """How many tasks all workers together work on; None: no limit but their own."""
        ...

    @property
    def engine_settings(self) -> dict[str, Any]:
        """For SQLAlchemy's create_engine."""
        ...

    @property
    def exists(self) -> bool:
        """False where there cannot have been a task yet."""
        ...

    def prepare(self) -> str:
        """Before DBOS opens it; returns what had to be done, or ""."""
        ...

    def opened(self) -> None:
        """DBOS has it open."""
        ...

    def look(self) -> None:
        """DatabaseFailed where it does not answer: DBOS itself would hold a thread until it does."""
        ...

    def has_tasks(self) -> bool:
        """Whether there has ever been one; it makes no file and no table."""
        ...

    def forget(self, tasks: list[str]) -> None:
        """They were deleted."""
        ...

    def given_up(self, tasks: list[str]) -> set[str]:
        """Those of the tasks that were cancelled because too many workers died with them."""
        ...


@dataclass(frozen=True)
class SqliteTasks:
    """A file of DBOS's own, for one orchestrator."""

    path: Path
    executor: str = "orchestrator"
    most_at_once: int | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def engine_settings(self) -> dict[str, Any]:
        return {}

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def prepare(self) -> str:
        notice = move_aside_if_corrupt(self.path)
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode = WAL")  # it stays with the file; readers wait for no writer
        connection.close()
        return notice

    def opened(self) -> None:
        pass

    def look(self) -> None:
        pass

    def has_tasks(self) -> bool:
        if not self.path.exists():
            return False
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'").fetchone()
        return found is not None

    def forget(self, tasks: list[str]) -> None:
        """Nothing else is kept of them."""

    def given_up(self, tasks: list[str]) -> set[str]:
        return set()


@dataclass(frozen=True)
class PostgresTasks:
    """The schema `dbos` of the database that all workers share."""

    connect: PatientConnect
    membership: Membership
    most_at_once: int | None
    exists: bool = True

    @property
    def url(self) -> str:
        return self.connect.url

    @property
    def engine_settings(self) -> dict[str, Any]:
        return {"creator": self.connect, "pool_timeout": WAIT_FOR_CONNECTION_S, "pool_pre_ping": True}

    @property
    def executor(self) -> str:
        return self.membership.worker

    def prepare(self) -> str:
        """Join the workers: DBOS then goes on with what this worker had at work when it died."""
        self.membership.join()
        return ""

    def opened(self) -> None:
        self.connect.patient = True

    def look(self) -> None:
        self.membership.ping()

    def has_tasks(self) -> bool:
        return self.membership.tasks_exist()

    def forget(self, tasks: list[str]) -> None:
        self.membership.forget(tasks)

    def given_up(self, tasks: list[str]) -> set[str]:
        return self.membership.given_up(tasks)
