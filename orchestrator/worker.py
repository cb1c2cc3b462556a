"""A worker: it works on tasks with others, on the same Postgres. No API, no cycles, no knowledge work.

`docker compose --profile scale up --scale worker=N` starts them. It ends by `os._exit`, as the service does.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

from . import VERSION, process
from .config import Config
from .errors import CONFIG_EXIT_CODE, TRY_AGAIN_EXIT_CODE, ConfigError, DatabaseFailed
from .events import emit
from .healthcheck import WORKER_HEARTBEAT_NAME
from .parts import Parts, assembled
from .workers.reaper import DeclaredDead, Reaper

CHECK_EVERY_S = 60.0
CHECK_WHEN_DOWN_S = 15.0
LEAVE_WITHIN_S = 3.0


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; ends the process."""
    if not config.database_url:
        raise ConfigError(
            "a worker shares its tasks through Postgres, and VESTAL_DATABASE_URL is not set;"
            " set it here and for the orchestrator, to postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    process.begin("worker")
    asyncio.run(_serve(config))
    os._exit(0)


async def _serve(config: Config) -> None:
    async with assembled(config) as parts:
        await parts.board.check_llm_services_health()
        emit("worker_started", version=VERSION, worker=config.worker_id, database=parts.database.name)
        beat = process.heartbeat(Path(tempfile.gettempdir()) / WORKER_HEARTBEAT_NAME)
        failed = await process.until_stopped(beat, _watch_backends(parts), *workers_loops(parts))
        if failed is not None:
            end_of_worker(failed)
        await leave(parts)
        emit("worker_stopped")
        os._exit(0)


async def _watch_backends(parts: Parts) -> None:
    """Tasks look at the board; the orchestrator tells the host agent."""
    while True:
        healthy = all(b.healthy for b in parts.board.backends if b.used)
        await parts.board.wait_for_change(CHECK_EVERY_S if healthy else CHECK_WHEN_DOWN_S)
        await parts.board.check_llm_services_health()


def workers_loops(parts: Parts) -> list[Coroutine[Any, Any, None]]:
    """What a process that works on shared tasks does all the time; nothing, where they are its own."""
    return [_work_among_others(parts)] if parts.membership else []


async def _work_among_others(parts: Parts) -> None:
    assert parts.membership is not None
    await parts.tasks.start()
    await Reaper(parts.membership, parts.tasks.record).run()


async def leave(parts: Parts) -> None:
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


def end_of_worker(failed: BaseException) -> NoReturn:
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
