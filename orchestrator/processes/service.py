"""The orchestrator's main process, until SIGTERM: the API, the cycles (each checks the LLM servers, then
works on tasks and knowledge) and the health monitor.

It ends with `os._exit`, because an orderly exit would close the connections of a running step, which would
then be recorded as failed. Finished steps are in the database; an unfinished step runs again at the next
start, as after a kill.
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from orchestrator import VERSION
from orchestrator.api.app import make_app
from orchestrator.config import Config
from orchestrator.container import Container, open_container
from orchestrator.cycle_runner import CycleRunner
from orchestrator.errors import ConfigError
from orchestrator.events import emit
from orchestrator.processes import common, worker_loops
from vestal.web.aiohttp_runner import JsonAppRunner

STOP_GRACE_S = 3.0


def serve(config: Config) -> int:
    """Run the service until SIGTERM or SIGINT, then end the process with exit code 0; if one of its loops
    fails, end the process with another exit code. This function therefore never returns.
    """
    common.begin("orchestrator")
    asyncio.run(_serve(config))
    os._exit(0)


async def _serve(config: Config) -> None:
    async with open_container(config) as container:
        runner = CycleRunner(container)
        site = await _listen(config, container, runner)
        emit("orchestrator_started", version=VERSION, port=config.port, bind=config.bind)
        loops = [runner.run_cycles(), runner.run_monitor(), *worker_loops.loops(container)]
        failed = await common.until_stopped(*loops)
        if failed is not None:
            worker_loops.end(failed)
        emit("orchestrator_stopping")
        await asyncio.wait([asyncio.create_task(site.stop())], timeout=STOP_GRACE_S)
        await worker_loops.leave(container)
        emit("orchestrator_stopped")
        os._exit(0)


async def _listen(config: Config, container: Container, runner: CycleRunner) -> web.BaseSite:
    app = make_app(container, runner)
    app_runner = JsonAppRunner(
        app,
        report_dropped=_report_dropped,
        report_stuck=_report_stuck,
        access_log=None,
        handle_signals=False,
    )
    await app_runner.setup()
    try:
        return await app_runner.listen(config.bind, config.port)
    except OSError as error:
        raise ConfigError(
            f"port {config.port} on {config.bind} cannot be bound ({error.strerror}): free it,"
            " or set VESTAL_ORCHESTRATOR_PORT to another."
        ) from None


def _report_stuck(error: OSError) -> None:
    emit("connections_not_accepted", f"new connections wait: {error.strerror}")


def _report_dropped(count: int) -> None:
    emit("connections_dropped", "there was no room for new connections", count=count)
