"""The gateway as a program: configuration, sockets, signals, and a shutdown in order.

Exit codes: 0 stopped by a signal; 75 port taken or disk full, try again; 78 the settings are wrong.
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
from mlx_server.gateway.connections.listeners import EXIT_BUSY, EXIT_CONFIG, CannotListen, Listeners
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.handover.forwarding import HandedOver
from mlx_server.gateway.handover.handing_over import hand_over
from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.opening import open_answer_log
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_table import RequestLimits, RequestTable
from mlx_server.gateway.telemetry import Telemetry
from vestal.best_effort import output
from vestal.best_effort.files import DISK_FAULTS
from vestal.config import Config, ConfigError, load
from vestal.supervision import Clock, SystemClock
from vestal.supervision.handover.successor import Succession
from vestal.web.descriptors import raise_descriptor_limit
from vestal.web.events import LogHandler
from vestal.web.listening_sockets import LOOPBACK, InheritedSockets

ENGINE = (sys.executable, "-m", "mlx_server.engine")
TICK_S = 0.5
POLL_S = 0.02
HAND_OVER = signal.SIGUSR1
"""Asks a gateway to hand over to its successor, which runs already."""


def main(engine_command: tuple[str, ...] = ENGINE) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code."""
    output.protect("mlx_server")
    faulthandler.enable()
    try:
        config = load()
        config.home.prepare()
    except ConfigError as error:
        output.write_line(sys.stderr, str(error))
        return EXIT_CONFIG
    except OSError as error:
        output.write_line(
            sys.stderr, f"{error.filename} cannot be written ({error.strerror}); set VESTAL_HOME"
        )
        return EXIT_BUSY if error.errno in DISK_FAULTS else EXIT_CONFIG
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
    succession.report_ready()
    asyncio.run(_run(config, clock, telemetry, listeners, succession, engine_command))
    return 0


async def _run(
    config: Config,
    clock: Clock,
    telemetry: Telemetry,
    listeners: Listeners,
    succession: Succession,
    engine_command: tuple[str, ...],
) -> None:
    mlx = config.mlx
    table = RequestTable(RequestLimits(mlx.max_running, mlx.max_queued, mlx.max_wait_s))
    dispatcher = Dispatcher(table, clock, telemetry)
    engine = EngineSupervisor(config, dispatcher, telemetry, clock, engine_command)
    signals = _signals()
    is_successor = succession.predecessor is not None
    keeper = AnswerKeeper(await open_answer_log(config, clock, telemetry.emit, waits=is_successor), clock)
    models = InstalledModels(config, clock)
    handed_over = HandedOver()
    context = GatewayContext(config, clock, dispatcher, models, keeper, telemetry.emit)
    app = create_app(
        context,
        engine,
        telemetry,
        host_names=listeners.host_names,
        keyless_addresses=listeners.keyless_addresses,
        handed_over=handed_over,
    )
    telemetry.emit("server_started", pid=os.getpid())
    tasks = [
        asyncio.ensure_future(engine.start()),  # first terminates an engine that an earlier gateway left
        asyncio.ensure_future(_tick(dispatcher, keeper, clock)),
        asyncio.ensure_future(listeners.follow_bridge(app)),
    ]
    if taken_up := await keeper.take_up_unfinished(app):
        telemetry.emit("answers_taken_up", "an earlier gateway left them unfinished", count=taken_up)
    listeners.serve(app)
    succession.report_serving()
    try:
        if (name := await signals.get()) == HAND_OVER.name:
            successor = Successor(f"http://{LOOPBACK}:{mlx.port}", mlx.api_key)
            leaving = asyncio.ensure_future(
                hand_over(
                    handed_over,
                    successor,
                    keeper,
                    dispatcher,
                    engine,
                    listeners,
                    telemetry,
                    clock,
                    mlx.drain_s,
                )
            )
            await _until_told(leaving, signals)
            await successor.close()
        else:
            telemetry.emit("server_stopping", f"asked by {name}")
            await _drain(dispatcher, keeper, clock, mlx.drain_s, signals)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.stop()
        await listeners.stop()
        await keeper.close()
        telemetry.emit("server_shutdown_complete")


def _signals() -> asyncio.Queue[str]:
    """Return a queue of the names of the signals SIGTERM, SIGINT and HAND_OVER, as they arrive."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, HAND_OVER):
        loop.add_signal_handler(number, queue.put_nowait, number.name)
    return queue


async def _until_told(leaving: asyncio.Future[None], signals: asyncio.Queue[str]) -> None:
    """Wait until the handover is complete, or a signal ends it, but another HAND_OVER. Raises its error."""
    stop = asyncio.ensure_future(_other_than(HAND_OVER.name, signals))
    stop.add_done_callback(lambda _: leaving.cancel())
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
    finally:
        stop.cancel()


async def _other_than(name: str, signals: asyncio.Queue[str]) -> None:
    while await signals.get() == name:
        pass


async def _drain(
    dispatcher: Dispatcher, keeper: AnswerKeeper, clock: Clock, drain_s: float, signals: asyncio.Queue[str]
) -> None:
    """Refuse new requests and let those in flight finish, for up to `drain_s` or until a second signal."""
    dispatcher.drain()
    end = clock.now() + drain_s
    while not dispatcher.idle and clock.now() < end and signals.empty():
        await clock.sleep(POLL_S)
    if not dispatcher.idle:
        keeper.detach()  # the next gateway goes on with what is written down
        dispatcher.fail_unfinished("The server stops; send the request again when it is back.")
        await clock.sleep(POLL_S)  # the clients receive their last line


async def _tick(dispatcher: Dispatcher, keeper: AnswerKeeper, clock: Clock) -> None:
    """Have the dispatcher and the answer log carry out their due work every TICK_S, until cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await clock.sleep(TICK_S)
            dispatcher.tick()
            keeper.log.sweep()
