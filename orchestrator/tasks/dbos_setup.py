"""Configure DBOS (its database, the name of this process, JSON as its storage format), launch it, and shut it
down if that fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.errors import TaskFailed
from orchestrator.events import emit
from orchestrator.storage.postgres_connection import IDLE_IN_TRANSACTION_S
from orchestrator.tasks.database import TaskDatabase

APPLICATION_VERSION = "tasks-1"
POOL_SIZE = 8


@dataclass(frozen=True)
class Queue:
    """The queue of tasks: its name, how many of its tasks one worker may run at a time, and how often a
    worker looks for further ones.

    DBOS stores these in one row of the database, and every worker reads that row before each look. So the
    workers that share a database all have the values of the one that started last.
    """

    name: str
    worker_concurrency: int
    poll_s: float


def import_dbos() -> Any:
    """Import DBOS and return the module. This is called when the first task needs it, because DBOS takes
    memory and time.
    """
    import dbos

    return dbos


def config_of(database: TaskDatabase) -> Any:
    """Return DBOS's configuration for this database."""
    return {
        "name": "vestal",
        "system_database_url": database.url,
        "sys_db_pool_size": POOL_SIZE,
        "db_engine_kwargs": database.sqlalchemy_options,
        # DBOS sets 60 s on each session, during which a worker that froze in a transaction blocked the
        # others.
        "sys_db_idle_transaction_timeout_sec": float(IDLE_IN_TRANSACTION_S),
        "application_version": APPLICATION_VERSION,
        "executor_id": database.executor,
        "log_level": "WARNING",
        "enable_otlp": False,
        "serializer": json_serializer(),
    }


async def launch(
    dbos: Any,
    database: TaskDatabase,
    queue: Queue,
    work_task: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
) -> tuple[Any, Any]:
    """Launch DBOS, which resumes unfinished tasks with `work_task`, and register the queue. `dbos` is the
    class DBOS. Return its instance, and the workflow, which is `work_task` as DBOS has registered it.

    If that fails, shut DBOS down and raise the error; `launch` may then be called again.
    """
    try:
        instance = dbos(config=config_of(database))
        workflow = dbos.workflow(name="work_task")(work_task)
        dbos.launch()
        await _register(dbos, queue, database.max_active)
    except BaseException:
        await shut_down(dbos)
        raise
    return instance, workflow


async def _register(dbos: Any, queue: Queue, limit: int | None) -> None:
    """Store the queue in the database. All workers together may run at most `limit` of its tasks at a time;
    if `limit` is None, each worker may run `queue.worker_concurrency`. If that changes how many the other
    workers may run, log it.
    """
    most = min(queue.worker_concurrency, limit or queue.worker_concurrency)
    stored = await dbos.retrieve_queue_async(queue.name)
    before = most if stored is None else await stored.get_worker_concurrency_async()
    await dbos.register_queue_async(
        queue.name,
        global_concurrency=limit,
        worker_concurrency=most,
        polling_interval_sec=queue.poll_s,
        on_conflict="always_update",
    )
    if limit is not None and before != most:
        sentence = "give all workers of a database the same SMART_WORKER_MAX_CONCURRENT"
        emit("tasks_per_worker_changed", sentence, before=before, now=most)


async def shut_down(dbos: Any) -> None:
    """Shut DBOS down, and give the running event loop a new thread pool.

    Whenever DBOS is called asynchronously, it makes its own thread pool the event loop's default executor,
    and the shutdown of DBOS closes that pool. Without a new pool, each later `asyncio.to_thread` in the
    process would raise RuntimeError.

    The pool is replaced twice. Before the shutdown, because the shutdown cancels calls that wait for a thread
    of DBOS's pool, and other callers' new calls must not be among them. After the shutdown, because a resumed
    task may have called DBOS meanwhile.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor())
    try:
        await asyncio.to_thread(partial(dbos.destroy, destroy_registry=True))
    finally:
        loop.set_default_executor(ThreadPoolExecutor())


def json_serializer() -> Any:
    """Return a serializer that stores data as JSON instead of pickle, so that the stored data is
    never code.
    """
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
