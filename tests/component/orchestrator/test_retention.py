"""Old finished tasks are deleted; unfinished tasks are kept, and finish."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.tasks.database import PostgresTasks, SqliteTasks
from orchestrator.tasks.retention import KEPT_S, drop_old_tasks
from orchestrator.workers.membership import Membership
from tests.component.orchestrator.conftest import Orchestrator, StandIn, wait_until
from tests.services.real_postgres import RealPostgres

Make = Callable[..., Orchestrator]
PAYLOADS = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")


def crew(tmp_path: Path) -> str:
    path = tmp_path / "agents.yaml"
    path.write_text("agents: {big: {prompt: Think., model: 'not-here:70b', tools: []}}")
    return str(path)


def rows(path: Path, task_id: str) -> dict[str, int]:
    """Return the number of rows about the task in each of DBOS's tables."""
    with closing(sqlite3.connect(path)) as db:
        count = "SELECT count(*) FROM {} WHERE workflow_uuid = ?"
        return {name: db.execute(count.format(name), (task_id,)).fetchone()[0] for name in PAYLOADS}


def test_drop_old_tasks_deletes_finished_tasks_with_their_steps_but_no_unfinished_task(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    path = one.home / "orchestrator-tasks.db"
    waits = one.submit("think hard", agents=["big"])
    cancelled = one.submit("think harder", agents=["big"])
    assert one.ask(f"/tasks/{cancelled}", method="DELETE")[0] == 200
    old = one.submit("once", agents=["lead"], idempotency_key="k")
    one.finished(old)
    kept = [one.submit(f"goal {number}", agents=["lead"]) for number in range(3)]
    for task in kept:
        one.finished(task)
    assert sum(rows(path, old).values()) > 2

    now = time.time() + 1
    assert drop_old_tasks(SqliteTasks(path), now, kept=3) == 0, "all ended less than a day ago"
    assert drop_old_tasks(SqliteTasks(path), now + KEPT_S, kept=3) == 2

    assert {task["id"] for task in one.ask("/tasks")[1]["tasks"]} == {waits, *kept}
    assert not any(rows(path, old).values()) and not any(rows(path, cancelled).values())
    assert drop_old_tasks(SqliteTasks(path), now + KEPT_S, kept=0) == 3
    assert one.task(waits)["state"] == "running", "it is older than all of those"
    assert one.submit("once", agents=["lead"], idempotency_key="k") == old
    assert one.finished(old)["answer"], "its key was forgotten: it is a new task"
    llm.control(models=["smollm2:135m", "all-minilm", "not-here:70b"])
    assert one.finished(waits)["answer"]


@pytest.mark.timeout(300)
def test_drop_old_tasks_deletes_a_hundred_tasks_in_one_call(orchestrator: Make, llm: StandIn):
    one = orchestrator(MLX_API_URL=llm.url, SMART_WORKER_MAX_CONCURRENT="32").start()
    tasks = [one.submit(f"goal {number}", agents=["lead"]) for number in range(110)]
    states = lambda: {task["state"] for task in one.ask("/tasks?limit=500")[1]["tasks"]}  # noqa: E731
    wait_until("all are done", lambda: states() == {"done"}, 200)
    path = one.home / "orchestrator-tasks.db"
    assert drop_old_tasks(SqliteTasks(path), time.time() + KEPT_S + 1, kept=4) == 106
    assert [task["id"] for task in one.ask("/tasks")[1]["tasks"]] == tasks[:-5:-1]


def test_drop_old_tasks_without_any_task_creates_no_database(tmp_path: Path):
    path = tmp_path / "orchestrator-tasks.db"
    assert drop_old_tasks(SqliteTasks(path), time.time()) == 0
    assert not path.exists()
    sqlite3.connect(path).close()  # the orchestrator is about to make its tables
    path.touch()
    assert drop_old_tasks(SqliteTasks(path), time.time()) == 0


def test_drop_old_tasks_deletes_finished_tasks_in_postgres(
    orchestrator: Make, llm: StandIn, postgres: RealPostgres
):
    url = postgres.new_database()
    database = PostgresDatabase(url)
    database.prepare()
    tasks = PostgresTasks(PatientConnect(url), Membership(database, "nightly"), None)
    assert drop_old_tasks(tasks, time.time()) == 0, "the tables of the tasks are not there yet"
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_DATABASE_URL=url).start()
    done = [one.submit(f"goal {number}", agents=["lead"]) for number in range(3)]
    for task in done:
        one.finished(task)
    tasks.membership.lost_worker(done[0])
    assert drop_old_tasks(tasks, time.time() + KEPT_S + 1, kept=1) == 2
    assert [task["id"] for task in one.ask("/tasks")[1]["tasks"]] == done[2:]
    with database.connect() as db:
        assert not db.execute("SELECT task FROM taken_over").fetchall()
    database.close()
