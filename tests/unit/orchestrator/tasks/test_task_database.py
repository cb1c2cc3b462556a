"""The database of the tasks, if it cannot be used: each failure is a DatabaseFailed, or is logged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, exc, inspect

from orchestrator.errors import DatabaseFailed
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.tasks.database import SqliteTasks
from orchestrator.tasks.retention import drop_old_tasks
from orchestrator.tasks.stored_tasks import StoredTasks


def test_drop_old_tasks_of_a_corrupt_file_deletes_nothing_and_logs_the_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The error ended the nightly run before it came to the knowledge, every night."""
    path = tmp_path / "tasks.db"
    path.write_bytes(b"garbage" * 1000)
    assert drop_old_tasks(SqliteTasks(path), 0.0) == 0
    assert "old_tasks_not_dropped" in capsys.readouterr().out
    assert path.exists()


def test_task_database_whose_lock_file_cannot_be_opened_is_a_database_failure(tmp_path: Path):
    """The file belonged to another user, and the API answered 500 (PermissionError)."""
    path = tmp_path / "tasks.db"
    path.touch()
    (tmp_path / "tasks.db.lock").mkdir()  # even root cannot open a folder for writing
    with pytest.raises(DatabaseFailed, match="see whether its folder is there and can be written"):
        SqliteTasks(path).prepare()


@pytest.mark.parametrize("name", ["C# projects", "what?", "50%25 done", "a%20b"])
def test_task_database_in_a_folder_with_signs_of_urls_is_the_file_at_its_path(tmp_path: Path, name: str):
    """A part of the path was taken for a query, a fragment or an escape sequence."""
    home = tmp_path / name
    home.mkdir()
    tasks = SqliteTasks(home / "tasks.db")
    tasks.prepare()
    with closing(sqlite3.connect(tasks.path)) as db:
        db.execute("CREATE TABLE workflow_status (x)")
    assert tasks.has_tasks()
    tasks.check_writable()
    with create_engine(tasks.url).connect() as connection:
        assert inspect(connection).get_table_names() == ["workflow_status"]
    assert list(tmp_path.iterdir()) == [home]
    assert tasks.path.stat().st_mode & 0o777 == 0o600


DEADLOCK = exc.OperationalError("SELECT 1", {}, psycopg.errors.DeadlockDetected("deadlock detected"))
READ_ONLY = exc.InternalError("SELECT 1", {}, psycopg.errors.ReadOnlySqlTransaction("read-only"))


@pytest.mark.parametrize("error", [DEADLOCK, READ_ONLY])
def test_stored_tasks_raise_database_failed_for_an_error_that_dbos_does_not_retry(error: exc.DBAPIError):
    """A worker waits at a DatabaseFailed, but an error of SQLAlchemy ended it."""

    class Dbos:
        @property
        def _sys_db(self) -> Dbos:
            return self

        def list_workflows(self, **options: Any) -> Any:
            raise error

        def reenqueue_for_recovery(self, task: str, workers: list[str], queue: str) -> None:
            raise error

        def cancel_workflow(self, task: str) -> None:
            raise error

    database: Any = PostgresDatabase("postgresql://u:s3cret@host/d")
    stored = StoredTasks(Dbos(), database, "tasks", set())
    for call in (stored.at_work, lambda: stored.queue_again("here", ["one"]), lambda: stored.give_up("one")):
        with pytest.raises(DatabaseFailed):
            call()
