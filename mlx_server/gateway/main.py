"""The gateway as a program: configuration, sockets, signals, and a shutdown in order.

Exit codes: 0 if a signal stopped it; 75 if trying again may help, because the port is taken, the disk is full
or the installed program has changed; 78 if the settings are wrong.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from types import ModuleType

from mlx_server.gateway.connections.listeners import EXIT_BUSY, EXIT_CONFIG, CannotListen, Listeners
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.kept_answers.opening import open_answer_log
from mlx_server.gateway.parts import GatewayParts
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_spans import RequestSpans
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from vestal.best_effort import output
from vestal.best_effort.files import DISK_FAULTS, EXHAUSTED
from vestal.config import Config, ConfigError, handed_down
from vestal.config.handed_down import load_handed_down
from vestal.supervision import Clock, SystemClock
from vestal.supervision.handover.successor import Succession
from vestal.tracing import open_tracer
from vestal.web.descriptors import raise_descriptor_limit
from vestal.web.events import LogHandler
from vestal.web.listening_sockets import InheritedSockets

ENGINE = (sys.executable, "-m", "mlx_server.engine")


def main(engine_command: tuple[str, ...] = ENGINE) -> int:
    """Run the gateway until SIGTERM or SIGINT, or until a successor has taken over after SIGUSR1. Return the
    exit code.
    """
    output.protect("mlx_server")
    faulthandler.enable()
    try:
        config = load_handed_down()
        config.home.prepare()
    except ConfigError as error:
        output.write_line(sys.stderr, str(error))
        return EXIT_CONFIG
    except OSError as error:
        output.write_line(sys.stderr, _why_not_started(error))
        return EXIT_CONFIG if _is_wrong_path(error) else EXIT_BUSY
    os.environ |= handed_down.for_child(config)  # each engine of this gateway gets the gateway's settings
    succession = Succession.from_environment()
    raise_descriptor_limit()
    clock = SystemClock()
    telemetry = Telemetry(clock.wall)
    listeners = Listeners(config, telemetry, InheritedSockets.from_environment())
    try:
        listeners.bind()
    except CannotListen as error:
        output.write_line(sys.stderr, str(error))
        return error.exit_code
    logging.basicConfig(level=logging.WARNING, handlers=[LogHandler(telemetry.emit, "logged")])
    if succession.predecessor is not None:
        _import_serving()  # before report_ready: if the import fails, the predecessor goes on
    succession.report_ready()
    return asyncio.run(_run(config, clock, telemetry, listeners, succession, engine_command))


async def _run(
    config: Config,
    clock: Clock,
    telemetry: Telemetry,
    listeners: Listeners,
    succession: Succession,
    engine_command: tuple[str, ...],
) -> int:
    """Start the engine, meanwhile import the modules that serve HTTP, and serve until a signal arrives.
    Return the exit code.

    The import takes a third of the time that an engine needs to start. Doing both at once matters because
    clients wait for both after a crash.
    """
    mlx = config.mlx
    signals = _signals()
    table = RequestTable(RequestLimits(mlx.max_running, mlx.max_queued, mlx.max_wait_s))
    tracer = open_tracer("vestal-gateway", lambda sentence: telemetry.emit("tracing_failed", sentence))
    dispatcher = Dispatcher(table, clock, telemetry, RequestSpans(tracer, clock.wall))
    engine = EngineSupervisor(config, dispatcher, telemetry, clock, engine_command)
    is_successor = succession.predecessor is not None
    answer_log = await open_answer_log(config, clock, telemetry.emit, waits=is_successor)
    starting = asyncio.ensure_future(engine.start())  # first terminates an engine of an earlier gateway
    try:
        serving = await asyncio.to_thread(_import_serving)
        parts = GatewayParts(config, clock, telemetry, dispatcher, engine, listeners, answer_log)
        ended_by = await serving.serve(parts, succession, signals)
        return EXIT_BUSY if ended_by == serving.LEFT_BEHIND else 0
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await engine.stop()
        await listeners.stop()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)
        telemetry.emit("server_shutdown_complete")


def _is_wrong_path(error: OSError) -> bool:
    """Return whether the error is about a path that cannot be used, so that another start with the same
    settings would fail too.
    """
    return error.filename is not None and error.errno not in DISK_FAULTS | EXHAUSTED


def _why_not_started(error: OSError) -> str:
    if error.filename is None:
        return f"The gateway cannot start ({error.strerror or error}); it is tried again"
    return f"{error.filename} cannot be read or written ({error.strerror}); set VESTAL_HOME"


def _import_serving() -> ModuleType:
    from mlx_server.gateway import serving

    return serving


def _signals() -> asyncio.Queue[str]:
    """Return a queue that receives the names of the signals SIGTERM, SIGINT and SIGUSR1 as they arrive."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, queue.put_nowait, number.name)
    return queue
