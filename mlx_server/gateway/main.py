"""The gateway as a program: configuration, sockets, signals, and a shutdown in order.

Exit codes: 0 stopped as told; 75 the port is taken (trying again may help); 78 the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys

from mlx_server.gateway.app import create_app
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.listeners import EXIT_CONFIG, CannotListen, Listeners
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_table import RequestLimits, RequestTable
from mlx_server.gateway.telemetry import LogToEvents, Telemetry
from vestal.config import Config, ConfigError, load
from vestal.supervision import Clock, SystemClock

ENGINE = (sys.executable, "-m", "mlx_server.engine")
TICK_S = 0.5
LOOK_S = 0.02


def main(engine_command: tuple[str, ...] = ENGINE) -> int:
    """Runs until SIGTERM or SIGINT; the exit code."""
    faulthandler.enable()
    try:
        config = load()
        config.home.prepare()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"{error.filename} cannot be written ({error.strerror}); set VESTAL_HOME", file=sys.stderr)
        return EXIT_CONFIG
    clock = SystemClock()
    telemetry = Telemetry(clock.wall)
    listeners = Listeners(config, telemetry)
    try:
        listeners.bind()
    except CannotListen as error:
        print(error, file=sys.stderr)
        return error.exit_code
    logging.basicConfig(level=logging.WARNING, handlers=[LogToEvents(telemetry)])
    asyncio.run(_run(config, clock, telemetry, listeners, engine_command))
    return 0


async def _run(
    config: Config, clock: Clock, telemetry: Telemetry, listeners: Listeners, engine_command: tuple[str, ...]
) -> None:
    mlx = config.mlx
    table = RequestTable(RequestLimits(mlx.max_running, mlx.max_queued, mlx.max_wait_s))
    dispatcher = Dispatcher(table, clock, telemetry)
    engine = EngineSupervisor(config, dispatcher, telemetry, clock, engine_command)
    pieces = GatewayContext(config, clock, dispatcher, InstalledModels(config, clock))
    app = create_app(pieces, engine, telemetry, more_names=listeners.names, keyless=listeners.keyless)
    signals = _signals()
    telemetry.emit("server_started", pid=os.getpid())
    tasks = [
        asyncio.ensure_future(engine.start()),  # may first have to end one that was left over
        asyncio.ensure_future(_ticking(dispatcher, clock)),
        asyncio.ensure_future(listeners.follow_bridge(app)),
    ]
    listeners.serve(app)
    try:
        telemetry.emit("server_stopping", f"asked by {await signals.get()}")
        await _drain(dispatcher, clock, mlx.drain_s, signals)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.stop()
        await listeners.stop()
        telemetry.emit("server_shutdown_complete")


def _signals() -> asyncio.Queue[str]:
    """The names of the signals that ask for an end, as they come."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, queue.put_nowait, number.name)
    return queue


async def _drain(dispatcher: Dispatcher, clock: Clock, drain_s: float, again: asyncio.Queue[str]) -> None:
    """Refuses what is new and lets finish what is in flight, until `drain_s` or a second signal."""
    dispatcher.drain()
    end = clock.now() + drain_s
    while not dispatcher.idle and clock.now() < end and again.empty():
        await clock.sleep(LOOK_S)
    if not dispatcher.idle:
        dispatcher.fail_unfinished("the server stops; send the request again when it is back")
        await clock.sleep(LOOK_S)  # the clients get their last line


async def _ticking(dispatcher: Dispatcher, clock: Clock) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await clock.sleep(TICK_S)
            dispatcher.tick()
