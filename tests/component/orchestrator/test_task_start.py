"""The task queue in this process, with the real DBOS: its start, and tasks that are queued again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dbos
import pytest

from orchestrator.agents import agents
from orchestrator.errors import DatabaseFailed
from orchestrator.tasks import dbos_setup
from orchestrator.tasks.database import SqliteTasks
from orchestrator.tasks.steps import Steps
from orchestrator.tasks.task_queue import TaskQueue


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """The file of the tasks; DBOS, which this process has once, is shut down after the test."""
    yield tmp_path / "tasks.db"
    await dbos_setup.shut_down(dbos.DBOS)


def queue_on(path: Path) -> TaskQueue:
    steps = Steps(agents.load(None, "m"), None, None, None, "e", 256, 4096)  # type: ignore[arg-type]  # none runs
    return TaskQueue(SqliteTasks(path), steps, max_calls=2)


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


async def test_task_queue_whose_start_failed_leaves_the_process_its_threads_and_starts_later(path: Path):
    """DBOS's thread pool is that of the event loop, too. It was closed after a failed start, and nothing in
    the process could use a thread from then on.
    """
    await queue_on(path).start()
    await dbos_setup.shut_down(dbos.DBOS)
    raising = "SELECT RAISE(ABORT, 'database or disk is full')"
    execute(path, f"CREATE TRIGGER full_disk BEFORE INSERT ON queues BEGIN {raising}; END")
    queue = queue_on(path)
    with pytest.raises(DatabaseFailed, match="disk is full"):
        await queue.start()
    assert await asyncio.to_thread(lambda: "a thread") == "a thread"
    execute(path, "DROP TRIGGER full_disk")
    await queue.start()
    assert await queue.list(10) == []


class Shared(SqliteTasks):
    """A database that counts as shared with other workers, as Postgres is."""

    max_active = 16


async def test_worker_with_another_task_limit_than_earlier_workers_reports_the_change_of_the_shared_limit(
    path: Path, capsys: pytest.CaptureFixture[str]
):
    """DBOS stores the limit in one row: the worker that started last set it for all, without a word."""
    for max_calls in (8, 8, 1):
        await TaskQueue(Shared(path), None, max_calls).start()  # type: ignore[arg-type]  # no step runs
        said = capsys.readouterr().out
        assert ("tasks_per_worker_changed" in said) == (max_calls == 1)
        await dbos_setup.shut_down(dbos.DBOS)
    assert '"before": 16, "now": 4' in said


class Waiting:
    """Steps that begin and never end. `begun` is set once the steps of `tasks` tasks have begun."""

    def __init__(self, tasks: int = 1) -> None:
        self.begun = asyncio.Event()
        self._expected = tasks

    def crew(self) -> tuple[str, ...]:
        return ("lead",)

    async def retrieve(self, *arguments: Any) -> Any:
        self._expected -= 1
        if self._expected == 0:
            self.begun.set()
        await asyncio.Event().wait()


async def test_task_cancelled_or_taken_by_another_worker_is_not_queued_again(path: Path):
    """A cancellation between a worker's look at the tasks and its queueing them again was undone."""
    steps = Waiting()
    queue = TaskQueue(SqliteTasks(path), steps, max_calls=2)  # type: ignore[arg-type]
    await queue.start()
    task = await queue.submit("g", ["lead"], None)
    await asyncio.wait_for(steps.begun.wait(), 60.0)
    queue.stop_taking()
    seen = await asyncio.to_thread(queue.stored.at_work)
    assert seen == {"orchestrator": [task]}

    await asyncio.to_thread(queue.stored.queue_again, "another worker", [task])
    assert await asyncio.to_thread(queue.stored.at_work) == seen
    await queue.cancel(task)
    await asyncio.to_thread(queue.stored.queue_again, "orchestrator", [task])
    assert (await queue.get(task) or {})["state"] == "cancelled"

    execute(path, "UPDATE workflow_status SET status = 'PENDING', queue_name = 'tasks'")
    await asyncio.to_thread(queue.stored.queue_again, "orchestrator", [task])
    assert (await queue.get(task) or {})["state"] == "queued"


async def test_task_that_is_queued_again_cancelled_or_given_up_keeps_the_time_at_which_it_began(path: Path):
    """DELETE /tasks/ID, and the death of the worker, deleted `started_at`. The steps still had theirs."""
    steps = Waiting(tasks=2)
    queue = TaskQueue(SqliteTasks(path), steps, max_calls=2)  # type: ignore[arg-type]
    await queue.start()
    tasks = [await queue.submit(goal, ["lead"], None) for goal in ("first", "second")]

    async def started_at() -> list[float | None]:
        return [task["started_at"] for task in sorted(await queue.list(10), key=lambda task: task["goal"])]

    await asyncio.wait_for(steps.begun.wait(), 60.0)
    began = await started_at()
    assert None not in began
    queue.stop_taking()
    await asyncio.to_thread(queue.stored.queue_again, "orchestrator", tasks)
    assert [task["state"] for task in await queue.list(10)] == ["queued", "queued"]
    assert await started_at() == began
    await queue.cancel(tasks[0])
    await asyncio.to_thread(queue.stored.give_up, tasks[1])
    assert await started_at() == began
    shown = await queue.get(tasks[0]) or {}
    assert (shown["state"], shown["started_at"]) == ("cancelled", began[0])
    assert shown["created_at"] <= shown["started_at"] <= shown["finished_at"]
    assert shown["steps"] == [], "the recording of the time is no step of the task"
