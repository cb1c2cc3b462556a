"""Serves HTTP from the start of a gateway to its end: takes up answers, listens, and drains or hands over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from mlx_server.gateway.app import create_app
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.handover.forwarding import HandedOver
from mlx_server.gateway.handover.handing_over import hand_over
from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.parts import GatewayParts
from mlx_server.gateway.requests.dispatcher import Dispatcher
from vestal.supervision import Clock
from vestal.supervision.handover.successor import Succession
from vestal.web.listening_sockets import LOOPBACK

TICK_S = 0.5
POLL_S = 0.02
HAND_OVER = signal.SIGUSR1.name
"""Asks a gateway to hand over to its successor, which runs already."""


async def serve(parts: GatewayParts, succession: Succession, signals: asyncio.Queue[str]) -> None:
    """Serve until one of the `signals` (their names), then drain, or hand over to the successor."""
    clock, telemetry, listeners = parts.clock, parts.telemetry, parts.listeners
    keeper = AnswerKeeper(parts.answer_log, clock)
    models, handed_over = InstalledModels(parts.config, clock), HandedOver()
    app = create_app(
        GatewayContext(parts.config, clock, parts.dispatcher, models, keeper, telemetry.emit),
        parts.engine,
        telemetry,
        host_names=listeners.host_names,
        keyless_addresses=listeners.keyless_addresses,
        handed_over=handed_over,
    )
    telemetry.emit("server_started", pid=os.getpid())
    if taken_up := await keeper.take_up_unfinished(app):
        telemetry.emit("answers_taken_up", "an earlier gateway left them unfinished", count=taken_up)
    tasks = [
        asyncio.ensure_future(_tick(parts.dispatcher, keeper, clock)),
        asyncio.ensure_future(listeners.follow_bridge(app)),
    ]
    listeners.serve(app)
    succession.report_serving()
    try:
        name = await signals.get()
        if name == HAND_OVER:
            await _hand_over(parts, keeper, handed_over, signals)
        else:
            telemetry.emit("server_stopping", f"asked by {name}")
            await _drain(parts, keeper, signals)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await keeper.close()


async def _tick(dispatcher: Dispatcher, keeper: AnswerKeeper, clock: Clock) -> None:
    """Have the dispatcher and the answer log handle what is due, every TICK_S, until cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await clock.sleep(TICK_S)
            dispatcher.tick()
            keeper.sweep()


async def _drain(parts: GatewayParts, keeper: AnswerKeeper, signals: asyncio.Queue[str]) -> None:
    """Refuse new requests and let those in flight finish, for `mlx.drain_s` or until a second signal."""
    dispatcher, clock = parts.dispatcher, parts.clock
    dispatcher.drain()
    end = clock.now() + parts.config.mlx.drain_s
    while not dispatcher.idle and clock.now() < end and signals.empty():
        await clock.sleep(POLL_S)
    if not dispatcher.idle:
        keeper.detach()  # the next gateway goes on with what is written down
        dispatcher.fail_unfinished("The server stops; send the request again when it is back.")
        await clock.sleep(POLL_S)  # the clients receive their last line


async def _hand_over(
    parts: GatewayParts, keeper: AnswerKeeper, handed_over: HandedOver, signals: asyncio.Queue[str]
) -> None:
    """Hand over, and stay while clients read on through this gateway, or until another signal."""
    mlx = parts.config.mlx
    successor = Successor(f"http://{LOOPBACK}:{mlx.port}", mlx.api_key)
    leaving = asyncio.ensure_future(hand_over(parts, keeper, handed_over, successor))
    stop = asyncio.ensure_future(_other_than(HAND_OVER, signals))
    stop.add_done_callback(lambda _: leaving.cancel())
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
    finally:
        stop.cancel()
        await successor.close()


async def _other_than(name: str, signals: asyncio.Queue[str]) -> None:
    while await signals.get() == name:
        pass
