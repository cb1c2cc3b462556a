"""Bind the listener: to loopback at once, to the Docker bridge's address as soon as that exists."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Sequence

from aiohttp import web

from host_agent.errors import HostAgentError, PortBusy
from host_agent.journal import Journal
from host_agent.listener.api import Api
from host_agent.listener.context import ListenerContext
from host_agent.listener.guard import MAX_BODY_BYTES, Guard
from vestal.config import Config
from vestal.platform import network, ports
from vestal.web import acceptor, listening_sockets
from vestal.web.aiohttp_runner import JsonAppRunner
from vestal.web.listening_sockets import InheritedSockets

log = logging.getLogger("vestal")

BRIDGE_EACH_S = 5.0
ANSWERS_WITHIN_S = 1.0
POLL_S = 0.01
WILDCARD = "0.0.0.0"


class CannotListen(HostAgentError):
    """The agent cannot listen at an address of its settings, although no other process holds the port."""

    code = "cannot_listen"
    retryable = True  # a network interface may get its address later
    exit_code = 75


class Listener:
    """The agent's HTTP server. A background task makes it listen on the Docker bridge's address too, once
    that address exists.
    """

    def __init__(
        self,
        config: Config,
        token: str,
        context: ListenerContext,
        journal: Journal,
        inherited: InheritedSockets,
    ) -> None:
        self._inherited = inherited
        self._taken: dict[str, socket.socket] = {}  # inherited sockets that wait for `_listen`
        self._sockets: list[socket.socket] = []
        self._config, self._journal = config, journal
        self._guard = Guard(config, token, context.sessions, journal)
        self._api = Api(context, config.agent.port, self._guard.cookie, self._guard.response_headers)
        app = web.Application(middlewares=[self._guard.middleware()], client_max_size=MAX_BODY_BYTES)
        app.add_routes(self._api.routes())
        app.on_shutdown.append(self._end_streams)
        self._runner = JsonAppRunner(
            app,
            report_dropped=self._report_dropped,
            report_stuck=self._report_stuck,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
            lingering_time=2.0,
        )
        self._bound: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen on the configured addresses, and close the inherited sockets of all other addresses. Raises
        PortBusy, which names the process that holds the port, if the port is taken, and CannotListen if an
        address or the port cannot be used for another reason.
        """
        await self._runner.setup()
        addresses = listening_sockets.addresses(self._config.agent.bind)
        bridge = None if WILDCARD in addresses else network.bridge_address()
        self._take_inherited([*addresses, *([bridge] if bridge else [])])
        for address in addresses:
            await self._bind(address)
        self._tasks = [asyncio.create_task(self._follow_bridge())]

    def duplicate_sockets(self) -> list[socket.socket]:
        """Return duplicates of the listening sockets, in which new connections wait for the next agent."""
        return [each.dup() for each in self._sockets if each.fileno() >= 0]

    async def stop_accepting(self) -> None:
        """Accept no more connections, and wait until the accepted ones have their answers.

        Give up after ANSWERS_WITHIN_S, because a connection may send no request or need a slow answer.
        """
        for site in list(self._runner.sites):
            await site.stop()
        self._api.close_streams()
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while self._runner.connections.unserved and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Close the listening sockets, then the connections, which get a moment to end by themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _end_streams(self, app: web.Application) -> None:
        self._api.close_streams()

    def _take_inherited(self, addresses: Sequence[str]) -> None:
        """Take the inherited sockets of these addresses for `_listen`, and close all others. This must be
        done before the first bind: an open socket of 127.0.0.1 keeps this process from binding 0.0.0.0, and
        an open socket of the gateway's earlier address keeps the gateway from binding its new one.
        """
        for address in addresses:
            if (found := self._inherited.take(address, self._config.agent.port)) is not None:
                self._taken[address] = found
        self._inherited.close()

    async def _bind(self, address: str) -> None:
        try:
            await self._listen(address)
        except OSError as error:
            cause = self._explain(error, address)
            if isinstance(cause, PortBusy):
                raise cause from None
            where = f"{address}, port {self._config.agent.port}"
            remedy = "correct agent.bind or agent.port"
            raise CannotListen(f"The agent cannot listen at {where} ({error.strerror}): {remedy}.") from None

    async def _listen(self, address: str) -> None:
        port = self._config.agent.port
        listening = self._taken.pop(address, None) or acceptor.bind(address, port)
        await self._runner.listen(address, port, listening)
        self._guard.admit_host(address)  # the Docker bridge's address is in no setting
        self._sockets.append(listening)
        self._bound.add(address)

    def _explain(self, error: OSError, address: str) -> OSError | PortBusy:
        """Return PortBusy, which names the process that holds the port, if the port is taken at `address`;
        else return `error`.
        """
        if error.errno != errno.EADDRINUSE:
            return error
        port = self._config.agent.port
        holder = ports.holder(port, address) or ports.PortHolder(port, None)
        sentence = ports.in_use_message(holder, "VESTAL_AGENT_PORT")
        return PortBusy(f"The agent cannot listen: {sentence}.")

    async def _follow_bridge(self) -> None:
        """Listen on the Docker bridge's address once it exists and its port is free, which may be long after
        the agent's start. Of failures in a row at one address, only the first is recorded in the journal.
        """
        failed = ""
        while WILDCARD not in self._bound:
            address = network.bridge_address()
            if address and address not in self._bound:
                try:
                    await self._listen(address)
                    failed = ""
                    self._journal.record("listener", "address_bound", "the Docker bridge", address=address)
                except OSError as error:
                    if address != failed:
                        failed, cause = address, str(self._explain(error, address))
                        self._journal.record("listener", "address_not_bound", cause, address=address)
            await asyncio.sleep(BRIDGE_EACH_S)

    def _report_stuck(self, error: OSError) -> None:
        cause = f"new connections wait: {error.strerror}"
        self._journal.record("listener", "connections_not_accepted", cause)

    def _report_dropped(self, count: int) -> None:
        cause = "there was no room for new connections"
        self._journal.record("listener", "connections_dropped", cause, count=count)
