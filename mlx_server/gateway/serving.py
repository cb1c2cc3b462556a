"""Serve HTTP from the start of a gateway to its end: resume unfinished answers, listen, and at the end drain
or hand over to a successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from functools import partial

from mlx_server.gateway.app import create_app
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.handover.forwarding import HandedOver
from mlx_server.gateway.handover.handing_over import hand_over
from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.health import SERVED, health_status
from mlx_server.gateway.in_flight.routes import RequestsInFlight
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.parts import GatewayParts
from mlx_server.gateway.peers.machine_choice import HERE, Machine, is_engine_start_far_off
from mlx_server.gateway.peers.mirrored import MirroredAnswers
from mlx_server.gateway.peers.mirroring import TakeOverMirrored, mirror
from mlx_server.gateway.peers.others import Peers, peers_of
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from vestal.platform import log_rotation
from vestal.supervision.handover.successor import Succession
from vestal.web.listening_sockets import LOOPBACK

TICK_S = 0.5
POLL_S = 0.02
OFFER_EVERY_S = 10.0
"""How often other machines are asked to finish the requests that wait here, while the next engine will start
late."""
SENT_AGAIN = "The server stops; send the request again when it is back."
GOES_ON = (
    "The server stops, and goes on with this answer when it is back: send the request again with its "
    "Idempotency-Key, or read on at GET /v1/streams/{x-request-id}."
)
HAND_OVER = signal.SIGUSR1.name
"""The signal that asks a gateway to hand over to its successor, which runs already."""
LEFT_BEHIND = (
    "the installed program has changed, and this gateway has no engine of its own version left; without an "
    "agent, start `vestal server` again"
)
"""Why a gateway ends that is left behind by an update (see `EngineSupervisor.is_left_behind`)."""
HAND_OVER_WITHIN_S = 30.0
"""How long such a gateway waits for its agent to start a successor."""


async def serve(parts: GatewayParts, succession: Succession, signals: asyncio.Queue[str]) -> str:
    """Serve until `signals` delivers the name of a signal. Then hand over to the successor if the signal is
    SIGUSR1; else drain: finish the accepted requests, within a time limit. Also drain if an update has left
    this gateway without an engine and no successor comes (`signals` then delivers LEFT_BEHIND); the next
    gateway continues the answers from the answer log.

    Return the name of the signal, or LEFT_BEHIND.
    """
    clock, telemetry, listeners = parts.clock, parts.telemetry, parts.listeners
    keeper = AnswerKeeper(parts.answer_log, clock)
    models, handed_over = InstalledModels(parts.config, clock), HandedOver()
    models.start_clean_up()
    instance = telemetry.engine_events.instance
    peers = keeper.offers.others = peers_of(
        parts.config, models, partial(_this_machine, parts), keeper.log, clock, telemetry.emit, instance
    )
    mirrored = MirroredAnswers()
    take_over = keeper.mirrored = TakeOverMirrored(mirrored, keeper, clock, telemetry.emit)
    in_flight = RequestsInFlight(parts.dispatcher, telemetry, keeper, clock, peers)
    app = create_app(
        GatewayContext(parts.config, clock, parts.dispatcher, models, keeper, telemetry.emit),
        parts.engine,
        telemetry,
        host_names=listeners.host_names,
        keyless_addresses=listeners.keyless_addresses,
        handed_over=handed_over,
        peers=peers,
        mirrored=mirrored,
        in_flight=in_flight,
    )
    telemetry.emit("server_started", pid=os.getpid())
    if peers is not None:
        await peers.start()
    if taken_up := await keeper.take_up_unfinished(app):
        telemetry.emit("answers_taken_up", "an earlier gateway left them unfinished", count=taken_up)
    tasks = [
        asyncio.ensure_future(_tick(parts, keeper)),
        asyncio.ensure_future(_end_left_behind(parts, handed_over, signals)),
        asyncio.ensure_future(listeners.follow_bridge(app)),
        asyncio.ensure_future(take_over.run()),
    ]
    if os.environ.get(log_rotation.VARIABLE):
        rotation = log_rotation.rotate_regularly(parts.config.home.logs, clock.sleep)
        tasks.append(asyncio.ensure_future(rotation))
    if peers is not None:
        origin = f"{socket.gethostname()} {parts.config.home.root} {parts.config.mlx.port}"
        tasks.append(asyncio.ensure_future(mirror(keeper, peers.first_living, origin, clock)))
    listeners.serve(app)
    succession.report_serving()
    try:
        name = await signals.get()
        if name == HAND_OVER:
            in_flight.followers.close()  # endless streams would keep this gateway from exiting
            await _hand_over(parts, keeper, handed_over, signals)
        else:
            telemetry.emit("server_stopping", name if name == LEFT_BEHIND else f"asked by {name}")
            await _drain(parts, keeper, peers, signals)
        return name
    finally:
        in_flight.followers.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await keeper.close()
        if peers is not None:
            await peers.close()


def _this_machine(parts: GatewayParts) -> Machine:
    """Return the state and load of this machine, which `peers.machine_choice` compares with those of other
    machines.
    """
    dispatcher = parts.dispatcher
    return Machine(
        HERE,
        serves=health_status(parts.engine, dispatcher) in SERVED,
        running=dispatcher.count(RequestPhase.RUNNING),
        waiting=dispatcher.count(RequestPhase.QUEUED) + dispatcher.count(RequestPhase.PARKED),
        slots=dispatcher.max_running if parts.engine.ready else 0,
    )


async def _tick(parts: GatewayParts, keeper: AnswerKeeper) -> None:
    """Handle the timeouts of the dispatcher and of the answer log every TICK_S seconds, until cancelled.
    While the engine's next start is far away, also ask other machines to finish the waiting requests.
    """
    dispatcher, clock = parts.dispatcher, parts.clock
    offer_at = clock.now()
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await clock.sleep(TICK_S)
            dispatcher.tick()
            keeper.sweep()
            now = clock.now()
            if parts.engine.ready or not is_engine_start_far_off(dispatcher.trial_at(), now):
                offer_at = now
            elif now >= offer_at:
                offer_at = now + OFFER_EVERY_S
                keeper.offer_running(Unavailable("engine_unavailable", "The engine died too often."))


async def _end_left_behind(parts: GatewayParts, handed_over: HandedOver, signals: asyncio.Queue[str]) -> None:
    """Make this gateway end once it gets no engine any more, because an update has changed the installed
    program: put LEFT_BEHIND into `signals`. `serve` then drains the gateway.

    If an agent holds the gateway's sockets, first wait HAND_OVER_WITHIN_S seconds, in which the agent may
    start a successor. If this gateway has handed over to a successor by then, do nothing.
    """
    clock = parts.clock
    while not parts.engine.is_left_behind:
        await clock.sleep(TICK_S)
    if parts.listeners.are_inherited:
        await clock.sleep(HAND_OVER_WITHIN_S)
    if handed_over.successor is None:
        signals.put_nowait(LEFT_BEHIND)


async def _drain(
    parts: GatewayParts, keeper: AnswerKeeper, peers: Peers | None, signals: asyncio.Queue[str]
) -> None:
    """Refuse new requests, and wait until the accepted ones have ended, for up to `mlx.drain_s` seconds or
    until a second signal; then fail those that remain. Do not wait for those that this machine's engine
    answers if there will be no engine (`EngineSupervisor.is_left_behind`).

    First, ask the peers to continue the unfinished answers, which `keeper` holds. If a peer accepts an
    answer, the client reads the rest through this gateway, and the wait includes that.
    """
    dispatcher, clock = parts.dispatcher, parts.clock

    def is_idle() -> bool:
        waits_for_engine = not dispatcher.idle and not parts.engine.is_left_behind
        return not waits_for_engine and not keeper.offers.is_offering and not (peers and peers.readers)

    dispatcher.drain()
    keeper.offer_running(Unavailable("draining", "The server is stopping."))
    end, was_idle = clock.now() + parts.config.mlx.drain_s, False
    while not (was_idle and is_idle()) and clock.now() < end and signals.empty():
        was_idle = is_idle()  # twice in a row, since a client that changes to a peer briefly reads nothing
        await clock.sleep(POLL_S)
    if not dispatcher.idle:
        keeper.detach()  # the next gateway continues the answers from the answer log
        dispatcher.fail_unfinished(GOES_ON if parts.config.mlx.keep_answers_s else SENT_AGAIN)
        await clock.sleep(POLL_S)  # the clients receive their last line


async def _hand_over(
    parts: GatewayParts, keeper: AnswerKeeper, handed_over: HandedOver, signals: asyncio.Queue[str]
) -> None:
    """Hand this gateway's requests and stored answers over to its successor, a gateway process that already
    runs. Return when no client is connected here any more, after a time limit (see `hand_over`), or as soon
    as `signals` delivers a signal other than SIGUSR1.

    SIGUSR1 is ignored because it only asks for this hand-over again. `handed_over` records the successor, and
    the gateway forwards new requests to it from then on.
    """
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
