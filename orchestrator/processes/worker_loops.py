"""Run the loops of a process that works on tasks, requeue its tasks when it stops, and end it if a loop
fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, NoReturn

from orchestrator.container import Container
from orchestrator.errors import CONFIG_EXIT_CODE, TRY_AGAIN_EXIT_CODE, ConfigError, DatabaseFailed
from orchestrator.events import emit
from orchestrator.workers.reaper import DeclaredDead, Reaper

LEAVE_WITHIN_S = 3.0
CHECK_EVERY_S = 2.0


def loops(container: Container) -> list[Coroutine[Any, Any, None]]:
    """Return the loops, at present one, that a process that works on tasks must run until it stops.

    With Postgres, the loop starts the task queue, sends this worker's heartbeat, and takes over the tasks of
    dead workers. With SQLite, it raises DatabaseFailed when the file with the tasks has been moved or
    deleted.
    """
    return [_share_tasks(container) if container.membership else _end_when_lost(container)]


async def _end_when_lost(container: Container) -> None:
    """Wait until the SQLite file with the tasks has been moved or deleted, then raise DatabaseFailed, because
    only a new process can create another file.
    """
    while not container.tasks.is_lost:  # noqa: ASYNC110 - no event announces a deleted file
        await asyncio.sleep(CHECK_EVERY_S)
    raise DatabaseFailed(f"{container.config.tasks_database} is gone; a restart creates a new one.")


async def _share_tasks(container: Container) -> None:
    assert container.membership is not None
    await container.tasks.start()
    await Reaper(container.membership, container.tasks.stored).run()


async def leave(container: Container) -> None:
    """Return this worker's running tasks to the shared queue, so that other workers take them at once instead
    of first having to find this worker dead.

    First stop taking tasks, because this worker would otherwise take the returned tasks again. Then look up
    and return this worker's tasks until none is left, because it may have been taking a task just when it was
    stopped. If the database fails or this takes longer than LEAVE_WITHIN_S seconds, log that and return.
    Without a shared queue (SQLite), do nothing.
    """
    if container.membership is None or not container.tasks.started:
        return
    tasks, worker = container.tasks.stored, container.membership.worker

    def requeue() -> bool:
        tasks.queue_again(worker, ours := tasks.at_work().get(worker, []))
        return bool(ours)

    container.tasks.stop_taking()
    try:
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await asyncio.to_thread(container.membership.leave)
            while await asyncio.to_thread(requeue):
                pass
    except (DatabaseFailed, TimeoutError) as error:
        emit("tasks_not_handed_over", repr(error))


def end(failed: BaseException) -> NoReturn:
    """End the process after the failure of a loop, with an exit code that tells its supervisor whether to
    start it again.
    """
    if isinstance(failed, DeclaredDead):
        emit(
            "worker_declared_dead",
            "it sent no heartbeat for too long, so other workers have its tasks; it restarts",
        )
        os._exit(TRY_AGAIN_EXIT_CODE)
    if isinstance(failed, ConfigError):
        emit("worker_refused", failed.message)
        os._exit(CONFIG_EXIT_CODE)
    if isinstance(failed, DatabaseFailed):
        emit("process_failed", failed.message)
        os._exit(TRY_AGAIN_EXIT_CODE)
    emit("process_failed", repr(failed))
    os._exit(1)
