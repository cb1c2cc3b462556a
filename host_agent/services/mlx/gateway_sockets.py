"""The sockets on which the gateway listens, held by the agent.

A gateway that dies takes its connections with it, but not these sockets. A connection made before the next
gateway serves waits for that gateway instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from vestal.config import Config
from vestal.platform import network
from vestal.supervision import ChildSpec, Event, ProcessHandle, spawn
from vestal.web import acceptor, listening_sockets
from vestal.web.listening_sockets import InheritedSockets

GATEWAY_WILL_NOT_COME = frozenset({"child_stopped", "child_gave_up", "breaker_opened"})
"""Events of the gateway after which it is better to refuse a client at once than to keep it waiting."""


KeepSockets = Callable[[Sequence[socket.socket]], Awaitable[None]]
"""Passes these sockets to the watchdog, which keeps them in place of those that it has."""


async def keep_nowhere(sockets: Sequence[socket.socket]) -> None:
    """Do nothing with the gateway's `sockets`. This is the `keep` of GatewaySockets if there is no watchdog
    that could keep the sockets open.
    """


class GatewaySockets:
    """Binds the gateway's sockets before each launch, and passes them to the gateway's process.

    `inherited` has the sockets that stayed open when an earlier agent replaced itself by this one; those of
    the gateway are used again instead of being bound. `environment` returns further environment variables for
    each gateway that is launched. `keep` passes the sockets to the watchdog.

    An address that cannot be bound is left to the gateway, which reports the reason and the remedy. The
    address of the Docker bridge is left to the gateway too until the bridge exists.
    """

    def __init__(
        self,
        config: Config,
        inherited: InheritedSockets,
        environment: Callable[[], Mapping[str, str]] = lambda: {},
        keep: KeepSockets = keep_nowhere,
    ) -> None:
        self._port = config.mlx.port
        self._configured = config.mlx.bind
        self._environment, self._keep = environment, keep
        self._sockets: dict[str, socket.socket] = {}
        for address in self._addresses():
            if (found := inherited.take(address, self._port)) is not None:
                self._sockets[address] = found

    @property
    def held(self) -> list[socket.socket]:
        """Return the sockets that are open now."""
        return list(self._sockets.values())

    async def launch(self, spec: ChildSpec) -> ProcessHandle:
        """Launch the gateway with the sockets. Raises LaunchError or OSError if its process cannot be
        started.
        """
        # The watchdog may still keep a socket that `close` has closed here, whose address is then not free.
        await self._keep(self.held)
        await asyncio.to_thread(self._bind_missing)
        sockets = self._sockets.values()
        fds = {listening_sockets.FDS_VARIABLE: listening_sockets.fds_value(sockets)}
        env = {**(spec.env or {}), **await asyncio.to_thread(self._environment), **fds}
        return await spawn(replace(spec, env=env), pass_fds=[each.fileno() for each in sockets])

    def on_event(self, event: Event) -> None:
        """Close the sockets if `event` says that no gateway will be launched soon: it was stopped, given up,
        or its breaker opened.
        """
        if event.event in GATEWAY_WILL_NOT_COME:
            self.close()

    def close(self) -> None:
        """Close the sockets, so that new connections are refused unless a gateway still serves."""
        for listening in self._sockets.values():
            listening.close()
        self._sockets.clear()

    def _bind_missing(self) -> None:
        for address in self._addresses():
            if address not in self._sockets:
                with contextlib.suppress(OSError):
                    self._sockets[address] = acceptor.bind(address, self._port)

    def _addresses(self) -> list[str]:
        bridge = network.bridge_address()
        return listening_sockets.addresses([*self._configured, *([bridge] if bridge else [])])
