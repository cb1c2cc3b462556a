"""The steps of a gateway that its host agent asks (with SIGUSR1) to hand over to its successor. The successor
is a new gateway process, which already runs, and waits for the lock of the answer log before it accepts
connections.

1. The gateway accepts no more connections. The sockets stay open in the agent and in the successor.
2. It forwards new requests on its open connections to the successor, where they wait until step 3. Meanwhile,
   it finishes the running requests that are not in the answer log.
3. It stops its engine and releases the lock of the answer log. The successor continues the unfinished
   requests in the log. The gateway's clients read the rest of their answers from the successor, through this
   gateway.
4. It runs until its clients have gone.
"""

from __future__ import annotations

from mlx_server.gateway.handover.forwarding import HandedOver
from mlx_server.gateway.handover.successor import Successor
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.parts import GatewayParts

POLL_S = 0.02
MAX_STAY_S = 15 * 60.0
IDLE_S = 5.0
"""A connection that has been idle this long is closed. Its client opens a new one, which the successor
accepts."""


async def hand_over(
    parts: GatewayParts, keeper: AnswerKeeper, state: HandedOver, successor: Successor
) -> None:
    """Hand this gateway's requests and answers over to `successor`, in the steps that the module's docstring
    lists, and wait until no connection is open, but at most MAX_STAY_S. The caller stops the gateway
    afterwards, even if connections are still open.

    `keeper` holds this gateway's stored answers. This call sets `state.successor`, from which the middleware
    ForwardToSuccessor learns that it must forward new requests. The call may be cancelled at any point; what
    was handed over until then is not taken back.
    """
    clock, dispatcher, listeners = parts.clock, parts.dispatcher, parts.listeners
    parts.telemetry.emit("handing_over", "a successor is ready")
    listeners.stop_accepting()
    state.successor = successor
    end_s = clock.now() + parts.config.mlx.drain_s
    while clock.now() < end_s and (
        keeper.has_unwritten
        # Without an engine, no request would end meanwhile.
        or (not parts.engine.is_left_behind and dispatcher.has_others_than(keeper.written_requests))
    ):
        await clock.sleep(POLL_S)
    moved = keeper.move_to(successor.copy_answer_from_next)
    dispatcher.fail_unfinished("The server is replaced; send the request again.")
    await parts.engine.stop()
    await keeper.close()
    parts.telemetry.emit("handed_over", "the successor goes on", answers=moved)
    end_s = clock.now() + MAX_STAY_S
    while listeners.open_connections(close_idle_for_s=IDLE_S) and clock.now() < end_s:
        await clock.sleep(POLL_S)
