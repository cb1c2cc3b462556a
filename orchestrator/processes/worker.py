"""A worker process: it runs tasks from the queue that all workers on one Postgres share, and does nothing
else.

`docker compose --profile scale up --scale worker=N` starts workers. A worker that is stopped returns its
tasks to the queue, where another worker continues them at their first unfinished step. The worker then ends
with `os._exit`, because an orderly exit would close the connections of a running step, which would then be
recorded as failed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from orchestrator import VERSION
from orchestrator.config import Config
from orchestrator.container import Container, open_container
from orchestrator.errors import ConfigError
from orchestrator.events import emit
from orchestrator.processes import common, worker_loops
from orchestrator.processes.healthcheck import WORKER_HEARTBEAT_NAME

CHECK_EVERY_S = 60.0
CHECK_WHEN_DOWN_S = 15.0


def serve(config: Config) -> int:
    """Run the worker until SIGTERM or SIGINT, then end the process with exit code 0; if one of its loops
    fails, end the process with another exit code. This function therefore never returns. It has the return
    type `int` only because the `serve` functions of the other processes have it.

    Raises ConfigError if VESTAL_DATABASE_URL is not set or another setting cannot be used, and DatabaseFailed
    if the database does not answer at the start.
    """
    if not config.database_url:
        raise ConfigError(
            "a worker shares its tasks through Postgres, and VESTAL_DATABASE_URL is not set;"
            " set it here and for the orchestrator, to postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    common.begin("worker")
    asyncio.run(_serve(config))
    os._exit(0)


async def _serve(config: Config) -> None:
    async with open_container(config) as container:
        await container.board.check_llm_services_health()
        emit("worker_started", version=VERSION, worker=config.worker_id, database=container.database.name)
        beat = common.heartbeat(Path(tempfile.gettempdir()) / WORKER_HEARTBEAT_NAME)
        failed = await common.until_stopped(beat, _watch_backends(container), *worker_loops.loops(container))
        if failed is not None:
            worker_loops.end(failed)
        await worker_loops.leave(container)
        emit("worker_stopped")
        os._exit(0)


async def _watch_backends(container: Container) -> None:
    """Check the backends at intervals, to keep the health board current. Only the orchestrator reports
    outages to the host agent.
    """
    while True:
        healthy = all(b.healthy for b in container.board.backends if b.used)
        await container.board.wait_for_change(CHECK_EVERY_S if healthy else CHECK_WHEN_DOWN_S)
        await container.board.check_llm_services_health()
