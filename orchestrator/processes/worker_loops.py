"""What a process does that works on tasks with others: its loops, how it leaves, and how it ends."""

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


def loops(parts: Container) -> list[Coroutine[Any, Any, None]]:
    """What a process that works on shared tasks does all the time; nothing, where they are its own."""
    return [_work_among_others(parts)] if parts.membership else []


async def _work_among_others(parts: Container) -> None:
    assert parts.membership is not None
    await parts.tasks.start()
    await Reaper(parts.membership, parts.tasks.record).run()


async def leave(parts: Container) -> None:
    """Hand the tasks at work to the others, who would else wait until this worker counts as dead."""
    if parts.membership is None or not parts.tasks.started:
        return

    def hand_over(worker: str) -> None:
        record = parts.tasks.record
        record.queue_again(record.at_work().get(worker, []))

    try:
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await asyncio.to_thread(parts.membership.leave)
            await asyncio.to_thread(hand_over, parts.membership.worker)
    except (DatabaseFailed, TimeoutError) as error:
        emit("tasks_not_handed_over", repr(error))


def end(failed: BaseException) -> NoReturn:
    """A loop has ended that never should: end the process, so that its supervisor starts it again."""
    if isinstance(failed, DeclaredDead):
        emit(
            "worker_declared_dead",
            "it was silent for too long: its tasks are the others' now, and it starts anew",
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
