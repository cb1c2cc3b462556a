"""The components of a gateway that are created before it serves HTTP, such as the engine's supervisor and the
answer log, together in one object.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_server.gateway.answer_log import AnswerLog
from mlx_server.gateway.connections.listeners import Listeners
from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.telemetry import Telemetry
from vestal.config import Config
from vestal.supervision import Clock


@dataclass(frozen=True)
class GatewayParts:
    """The components that `main` creates and passes to `serving`. `main` closes them at the end, unless
    `serving` has closed one earlier.
    """

    config: Config
    clock: Clock
    telemetry: Telemetry
    dispatcher: Dispatcher
    engine: EngineSupervisor
    listeners: Listeners
    answer_log: AnswerLog
