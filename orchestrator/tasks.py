"""Durable tasks on DBOS: what was accepted is finished, through any kill, and no finished step is paid twice.

DBOS writes each step's result to SQLite before the next begins. After a kill it resumes every unfinished
task of this executor at its first unfinished step. Recovery is per application version: APPLICATION_VERSION
changes only when the order of a workflow's steps does, and then old tasks must be let finish first.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from . import task_view, task_workflow
from .database import move_aside_if_corrupt
from .errors import IdempotencyConflict, TaskFailed
from .events import adopt_logger, emit
from .task_steps import Steps

APPLICATION_VERSION = "tasks-1"
EXECUTOR = "orchestrator"
QUEUE = "tasks"
POLL_S = 0.25  # costs 1 % of a core
KEY_NAMESPACE = uuid.UUID("5f1d7e0a-6d0c-4bb5-9d3b-1d7f8c2f6a55")


def begun_at_once(most_calls: int) -> int:
    """How many tasks are at work at once: more than their calls, which the client alone bounds.

    The queue is looked into every POLL_S only: a task begun ahead takes the place of one that ends (else the
    models stood idle for 40 % of the time: 50 tasks of one call of 0.3 s, two at once). And those that wait
    for their model do not hold up the others.
    """
    return 2 * most_calls + 2


class TaskEngine:
    """DBOS and the one workflow. It starts, and dbos is imported, when there is a task to look at."""

    def __init__(self, path: Path, steps: Steps, most_at_once: int) -> None:
        self._path = path
        self._steps = steps
        self._dbos: Any = None
        self._workflow: Any = None
        self._starting = asyncio.Lock()
        self._most_at_once = most_at_once
        self._doing: dict[str, dict[str, str]] = {}  # task → step at work → what it waits for
        self.notices: list[str] = []

    @property
    def exists(self) -> bool:
        """Whether there has ever been a task: without one, nothing of this need be loaded."""
        return self._dbos is not None or self._path.exists()

    async def start(self) -> None:
        """Import and launch DBOS, once; unfinished tasks go on from here."""
        async with self._starting:
            if self._dbos is not None:
                return
            self.notices += filter(None, [await asyncio.to_thread(_prepare, self._path)])
            dbos = await asyncio.to_thread(_import_dbos)
            adopt_logger("dbos")
            dbos.DBOS(config=_dbos_config(self._path))
            self._workflow = dbos.DBOS.workflow(name="work_task")(self._make_workflow())
            dbos.DBOS.launch()
            await dbos.DBOS.register_queue_async(
                QUEUE,
                worker_concurrency=begun_at_once(self._most_at_once),
                polling_interval_sec=POLL_S,
                on_conflict="always_update",
            )
            self._dbos = dbos
        emit("tasks_engine_started", path=str(self._path))

    async def submit(self, goal: str, agents: list[str], key: str | None) -> str:
        """Accept a task and return its id; the same key gives the task that was accepted first.

        IdempotencyConflict where that one is another task. It is compared with what is stored after the
        enqueueing, which keeps what was there: so of two that come at once, one is refused as well.
        """
        await self.start()
        task_id = str(uuid.uuid5(KEY_NAMESPACE, key) if key else uuid.uuid4())
        task = {"goal": goal, "agents": agents}
        with self._dbos.SetWorkflowID(task_id):
            await self._dbos.DBOS.enqueue_workflow_async(QUEUE, self._workflow, task)
        if key:
            found = await self._dbos.DBOS.list_workflows_async(workflow_ids=[task_id], load_output=False)
            if not found or not task_view.is_same(found[0], task):
                raise IdempotencyConflict(
                    f"this `idempotency_key` is that of task {task_id}, which has another goal or other"
                    " agents; use a new key for a new task."
                )
        emit("task_accepted", task=task_id)
        return task_id

    async def list(self, limit: int) -> list[dict[str, Any]]:
        if not self.exists:
            return []
        await self.start()
        found = await self._dbos.DBOS.list_workflows_async(limit=limit, sort_desc=True, load_output=False)
        return [task_view.summary(status) for status in found]

    async def get(self, task_id: str) -> dict[str, Any] | None:
        if not self.exists:
            return None
        await self.start()
        found = await self._dbos.DBOS.list_workflows_async(workflow_ids=[task_id])
        if not found:
            return None
        steps = await self._dbos.DBOS.list_workflow_steps_async(task_id)
        return task_view.detail(found[0], steps, self._doing.get(task_id))

    async def cancel(self, task_id: str) -> None:
        """Cancel a task that is queued or running; the step at work is broken off."""
        await self._dbos.DBOS.cancel_workflow_async(task_id)
        emit("task_cancelled", task=task_id)

    async def waiting(self) -> int:
        """How many tasks are queued or running."""
        if not self.exists:
            return 0
        await self.start()
        active = await self._dbos.DBOS.list_workflows_async(
            status=task_view.ACTIVE_STATUSES, load_input=False, load_output=False
        )
        return len(active)

    def _make_workflow(self) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        async def work_task(task: dict[str, Any]) -> dict[str, Any]:  # a plain function: DBOS marks it
            try:
                return await self._work_task(task)
            finally:
                self._doing.pop(self._dbos.DBOS.workflow_id, None)

        return work_task

    async def _work_task(self, task: dict[str, Any]) -> dict[str, Any]:
        result = await task_workflow.work(task, self._steps, self._reserve, self._most_at_once)
        emit("task_done", task=self._dbos.DBOS.workflow_id)
        return result

    def _reserve(self, name: str) -> task_workflow.Run:
        """The next place among the workflow's steps, for a step of this name."""
        place, task_id = self._dbos.DBOS.reserve_step(), self._dbos.DBOS.workflow_id
        doing = self._doing.setdefault(task_id, {})

        async def run(work: Any, *arguments: Any) -> Any:
            async def at_work() -> Any:
                doing[name] = ""
                emit("step_started", task=task_id, step=name)
                try:
                    return await work(*arguments, lambda detail: doing.__setitem__(name, detail))
                finally:
                    doing.pop(name, None)

            return await place.run_async({"name": name, "preemptible": True}, at_work)

        return run


def _import_dbos() -> Any:
    import dbos

    return dbos


def _prepare(path: Path) -> str:
    notice = move_aside_if_corrupt(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")  # it stays with the file; readers never wait for writers
    connection.close()
    return notice


def _dbos_config(path: Path) -> Any:
    return {
        "name": "vestal",
        "system_database_url": f"sqlite:///{path}",
        "application_version": APPLICATION_VERSION,
        "executor_id": EXECUTOR,
        "log_level": "WARNING",
        "enable_otlp": False,
        "serializer": _json_serializer(),
    }


def _json_serializer() -> Any:
    """JSON in the place of DBOS's pickle: what lies in the volume must never be code."""
    from dbos import Serializer

    class JsonSerializer(Serializer):
        def serialize(self, data: Any) -> str:
            return json.dumps(data, default=_failure)

        def deserialize(cls, serialized_data: str) -> Any:
            data = json.loads(serialized_data)
            return (
                TaskFailed(data["__failure__"]) if isinstance(data, dict) and "__failure__" in data else data
            )

        def name(self) -> str:
            return "vestal_json"

    return JsonSerializer()


def _failure(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"__failure__": str(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")
