"""The orchestrator's process: the API, the cycles and the monitor, until SIGTERM.

It ends by `os._exit`: a step in flight must not be recorded as failed because its connections were closed
under it. What is finished is in SQLite; what is not goes on at the next start, as after any kill.
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from orchestrator import VERSION
from orchestrator.api.app import make_app
from orchestrator.config import Config
from orchestrator.container import Container, assembled
from orchestrator.cycle_runner import CycleRunner
from orchestrator.errors import ConfigError
from orchestrator.events import emit
from orchestrator.processes import common, worker_loops

STOP_GRACE_S = 3.0


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; ends the process."""
    common.begin("orchestrator")
    asyncio.run(_serve(config))
    os._exit(0)


async def _serve(config: Config) -> None:
    async with assembled(config) as parts:
        runner = CycleRunner(parts)
        site = await _listen(config, parts, runner)
        emit("orchestrator_started", version=VERSION, port=config.port, bind=config.bind)
        loops = [runner.run_cycles(), runner.run_monitor(), *worker_loops.loops(parts)]
        failed = await common.until_stopped(*loops)
        if failed is not None:
            worker_loops.end(failed)
        emit("orchestrator_stopping")
        await asyncio.wait([asyncio.create_task(site.stop())], timeout=STOP_GRACE_S)
        await worker_loops.leave(parts)
        emit("orchestrator_stopped")
        os._exit(0)


async def _listen(config: Config, parts: Container, runner: CycleRunner) -> web.TCPSite:
    app_runner = web.AppRunner(make_app(parts, runner), access_log=None, handle_signals=False)
    await app_runner.setup()
    site = web.TCPSite(app_runner, config.bind, config.port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"port {config.port} on {config.bind} cannot be bound ({error.strerror}): free it,"
            " or set VESTAL_ORCHESTRATOR_PORT to another."
        ) from None
    return site
