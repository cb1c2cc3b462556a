"""The start of the task queue in this process, with the real DBOS."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

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
