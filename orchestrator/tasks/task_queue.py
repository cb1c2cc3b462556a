"""The queue of durable tasks, on DBOS: accepted tasks survive kills, and no finished step runs twice.

DBOS writes each step's result to the database before the next step begins. After a kill it resumes every
unfinished task of this worker at its first unfinished step; on Postgres, `orchestrator/workers` does so for
workers whose heartbeat has stopped. DBOS resumes only tasks of the same application version, so
dbos_setup.APPLICATION_VERSION changes only when the order of the steps does, and then old tasks have to
finish first.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DatabaseFailed, IdempotencyConflict, QueueFull
from orchestrator.events import adopt_logger, emit
from orchestrator.tasks import database_errors, dbos_setup, view, workflow
from orchestrator.tasks.database import TaskDatabase
from orchestrator.tasks.step_span import step_span
from orchestrator.tasks.steps import Steps
from orchestrator.tasks.stored_tasks import StoredTasks, record_start

if TYPE_CHECKING:
    from vestal.tracing.tracer import Tracer

QUEUE = "tasks"
ANSWER_WITHIN_S = 8.0  # less than the time-out of most clients, 10 s
POLL_S = 0.25  # polling this often uses 1 % of a core
KEY_NAMESPACE = uuid.UUID("5f1d7e0a-6d0c-4bb5-9d3b-1d7f8c2f6a55")


def max_active_tasks(max_calls: int) -> int:
    """Return how many tasks may be active at the same time: more than `max_calls`, to which LlmClient limits
    model calls.

    DBOS polls the queue only every POLL_S seconds, but a task that is already active can use a free call at
    once; without such tasks the models were idle for 40 % of the time (50 tasks of one call of 0.3 s, two
    calls at once). Also, tasks that wait for their model do not block the others.
    """
    return 2 * max_calls + 2


class TaskQueue:
    """Accepts, runs, lists, shows and cancels tasks. DBOS is imported when the first task needs it.

    `steps` does the work of the tasks' steps. `max_calls` is the highest number of model calls that LlmClient
    makes at the same time; it determines how many tasks this process runs at a time (`max_active_tasks`) and
    how many agents of one task. While `max_unfinished` tasks of all workers together are unfinished, a new
    task is refused. `tracer` records spans of the tasks (None: no tracing).
    """

    def __init__(
        self,
        database: TaskDatabase,
        steps: Steps,
        max_calls: int,
        max_unfinished: int = 1000,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._database = database
        self._steps = steps
        self._dbos: Any = None
        self._instance: Any = None
        self._workflow: Any = None
        self._starting = asyncio.Lock()
        self._max_calls = max_calls
        self._max_unfinished = max_unfinished
        self._handles_errors, self._submitting = False, 0
        self._here: set[str] = set()  # tasks that run in this process
        self._running_steps: dict[str, dict[str, str]] = {}  # task → running step → what it waits for
        self.notices: list[str] = []

    @property
    def exists(self) -> bool:
        """Return True if DBOS runs here or the tasks' database exists. Otherwise no task is stored, and DBOS
        need not be loaded to look for one.
        """
        return self._dbos is not None or self._database.exists

    async def start(self) -> None:
        """Import and launch DBOS once, which resumes unfinished tasks. Raises DatabaseFailed if the database
        fails; it may then be called again.
        """
        async with self._starting, database_errors.translated(self._database):
            if self._dbos is not None:
                return
            self.notices += filter(None, [await asyncio.to_thread(self._database.prepare)])
            dbos = await asyncio.to_thread(dbos_setup.import_dbos)
            adopt_logger("dbos")
            if not self._handles_errors:
                database_errors.install(self._database)
                self._handles_errors = True
            queue = dbos_setup.Queue(QUEUE, max_active_tasks(self._max_calls), POLL_S)
            self._instance, self._workflow = await dbos_setup.launch(
                dbos.DBOS, self._database, queue, self._make_workflow(dbos.DBOS)
            )
            self._database.opened()
            self._dbos = dbos
        emit("tasks_engine_started", executor=self._database.executor)

    @property
    def is_lost(self) -> bool:
        """Return True if this process works on a database file that was moved or deleted, so that the process
        must restart.
        """
        return self._database.is_lost

    @property
    def started(self) -> bool:
        """Return True if DBOS runs in this process."""
        return self._dbos is not None

    def stop_taking(self) -> None:
        """Stop DBOS from taking further tasks from the queue. Tasks that are running here continue."""
        for event in self._instance.background_thread_stop_events:
            event.set()

    @property
    def stored(self) -> StoredTasks:
        """Return an object that reads and changes the tasks in DBOS's tables. Only valid after `start`."""
        return StoredTasks(self._instance, self._database, QUEUE, self._here)

    async def submit(
        self,
        goal: str,
        agents: list[str],
        key: str | None,
        traceparent: str | None = None,
        named: list[str] | None = None,
    ) -> str:
        """Accept a task and return its id. `key` is the client's idempotency key: if a task with the same key
        was accepted before, return the id of that task. `agents` are the agents of the task; [] lets the
        lead choose them. `named` are the agents that the client named: [] if it named none, so that `agents`
        depends on the configuration. None means that the client named all of `agents`.

        If two tasks with the same key are submitted at the same time, only one is stored, and the other call
        returns the id of the stored task too. `traceparent` names the span to which the task belongs; it is
        stored with the task, so that all its steps are in one trace, whichever worker runs them.

        Raises IdempotencyConflict if the client sent another goal or other agents with the same key before,
        QueueFull if there are too many unfinished tasks, and DatabaseFailed if the database fails.
        """
        await self.start()
        task_id = str(uuid.uuid5(KEY_NAMESPACE, key) if key else uuid.uuid4())
        task: dict[str, Any] = {"goal": goal, "agents": agents, "named": agents if named is None else named}
        if self._tracer is not None:
            about = {"vestal.task": task_id}
            span = self._tracer.start("task accepted", traceparent, serves=True, attributes=about)
            task["traceparent"] = span.traceparent
            span.end()
        async with self._answering(f" The task may have been accepted nevertheless, as {task_id}."):
            if key and await self._is_stored(task_id, task):
                return task_id
            async with self._place_in_queue():
                with self._dbos.SetWorkflowID(task_id):
                    await self._dbos.DBOS.enqueue_workflow_async(QUEUE, self._workflow, task)
            if key:
                await self._is_stored(task_id, task)
        emit("task_accepted", task=task_id)
        return task_id

    async def _is_stored(self, task_id: str, task: dict[str, Any]) -> bool:
        """Return whether the task is stored. Raises IdempotencyConflict if a different task is stored under
        its id.
        """
        found = await self._dbos.DBOS.list_workflows_async(workflow_ids=[task_id], load_output=False)
        if found and not view.is_same(found[0], task):
            raise IdempotencyConflict(
                f"this `idempotency_key` is that of task {task_id}, which has another goal or other"
                " agents; use a new key for a new task."
            )
        return bool(found)

    @asynccontextmanager
    async def _place_in_queue(self) -> AsyncIterator[None]:
        """Reserve a place in the queue while a task is being stored. Raises QueueFull if there are too many
        unfinished tasks.
        """
        self._submitting += 1
        try:
            # Tasks that are being stored count too, so that many requests at once do not exceed the limit.
            first_beyond = self._max_unfinished - self._submitting
            if first_beyond < 0 or await self._dbos.DBOS.list_workflows_async(
                status=view.ACTIVE_STATUSES, offset=first_beyond, limit=1, load_input=False, load_output=False
            ):
                raise QueueFull(
                    f"{self._max_unfinished} tasks are unfinished, and no more are accepted: ask again later,"
                    " or raise orchestrator.max_unfinished_tasks (VESTAL_MAX_UNFINISHED_TASKS)."
                )
            yield
        finally:
            self._submitting -= 1

    async def list(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` tasks, without their steps and answers."""
        if not self.exists:
            return []
        await self.start()
        async with self._answering():
            found = await self._dbos.DBOS.list_workflows_async(limit=limit, sort_desc=True, load_output=False)
        given_up = await self._given_up(found)
        return [view.summary(status, status.workflow_id in given_up) for status in found]

    async def get(self, task_id: str) -> dict[str, Any] | None:
        """Return the task with its steps and its answer; None if there is no such task."""
        if not self.exists:
            return None
        await self.start()
        async with self._answering():
            found = await self._dbos.DBOS.list_workflows_async(workflow_ids=[task_id])
            if not found:
                return None
            steps = await self._dbos.DBOS.list_workflow_steps_async(task_id)
        given_up = bool(await self._given_up(found))
        return view.detail(found[0], steps, self._running_steps.get(task_id), given_up)

    async def _given_up(self, found: Iterable[Any]) -> set[str]:
        cancelled = [status.workflow_id for status in found if status.status == "CANCELLED"]
        return await asyncio.to_thread(self._database.given_up, cancelled) if cancelled else set()

    async def cancel(self, task_id: str) -> None:
        """Cancel a task that is queued or running. If it is done or failed, or does not exist, it stays as it
        is. The worker that runs the task aborts its running step about a second after this returns.

        Only valid after `start`. Raises DatabaseFailed if the database fails.
        """
        async with self._answering():
            await self._dbos.DBOS.cancel_workflow_async(task_id)
        emit("task_cancelled", task=task_id)

    async def waiting(self) -> int:
        """Return how many tasks are queued or running."""
        if not self.exists:
            return 0
        await self.start()
        async with self._answering():
            active = await self._dbos.DBOS.list_workflows_async(
                status=view.ACTIVE_STATUSES, load_input=False, load_output=False
            )
        return len(active)

    @asynccontextmanager
    async def _answering(self, else_: str = "") -> AsyncIterator[None]:
        """Limit the time of the `async with` block, which asks the database. Raises DatabaseFailed if the
        database fails or does not answer in time, because DBOS itself would wait without a limit. `else_` is
        a sentence to add to the message about the time-out.
        """
        try:
            async with database_errors.translated(self._database), asyncio.timeout(ANSWER_WITHIN_S):
                await asyncio.to_thread(self._database.ping)
                yield
        except TimeoutError:
            raise DatabaseFailed(f"the tasks' database does not answer; ask again soon.{else_}") from None

    def _make_workflow(self, dbos: Any) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        """Return the function that DBOS calls to work on a task. `dbos` is the class DBOS. It is an argument,
        because `start` sets `self._dbos` only after the launch, during which DBOS already resumes tasks.
        """

        async def work_task(task: dict[str, Any]) -> dict[str, Any]:  # a plain function: DBOS marks it
            task_id = dbos.workflow_id
            self._here.add(task_id)
            try:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, Context().run, record_start, dbos, task_id)
                reserve = partial(self._reserve, dbos, traceparent=task.get("traceparent"))
                result = await workflow.work(task, self._steps, reserve, self._max_calls)
            finally:
                self._here.discard(task_id)
                self._running_steps.pop(task_id, None)
            emit("task_done", task=task_id)
            return result

        return work_task

    def _reserve(self, dbos: Any, name: str, traceparent: str | None) -> workflow.Run:
        """Reserve the next position among the workflow's steps for the step `name`, and return the function
        that runs it.

        `traceparent` is the span that the step belongs to, or None.
        """
        place, task_id = dbos.reserve_step(), dbos.workflow_id
        running = self._running_steps.setdefault(task_id, {})

        async def run(work: Any, *arguments: Any) -> Any:
            async def at_work() -> Any:
                running[name] = ""
                emit("step_started", task=task_id, step=name)
                try:
                    with step_span(self._tracer, name, task_id, traceparent):
                        return await work(*arguments, lambda detail: running.__setitem__(name, detail))
                finally:
                    running.pop(name, None)

            return await place.run_async({"name": name, "preemptible": True}, at_work)

        return run
