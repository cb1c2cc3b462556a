"""The gateway's listening sockets: on loopback, on the addresses in `mlx.bind`, and on the Docker bridge once
it exists.

Inside containers on Linux, `host-gateway` stands for the bridge's address. The address appears with the
Docker engine, which may start later than the gateway. The gateway listens on 0.0.0.0 only if that is
configured.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from mlx_server.gateway.telemetry import Telemetry
from vestal.config import Config
from vestal.platform import network, ports
from vestal.web import acceptor, listening_sockets
from vestal.web.connections import ConnectionTable
from vestal.web.descriptors import max_connections
from vestal.web.listening_sockets import InheritedSockets

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mlx_server.gateway.connections.http_protocol import HttpServer

BRIDGE_INTERVAL_S = 5.0
EXIT_BUSY = 75  # EX_TEMPFAIL: the port may become free, so it is tried again
EXIT_CONFIG = 78


class CannotListen(Exception):
    """The gateway cannot listen. `exit_code` is EXIT_BUSY if trying again may help, else EXIT_CONFIG."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises CannotListen if the address or the port cannot be used."""
    try:
        return acceptor.bind(address, port)
    except OSError as error:
        raise _cannot(error, address, port) from error


def _cannot(error: OSError, address: str, port: int) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        held = ports.holder(port, address) or ports.PortHolder(port, None)
        return CannotListen(ports.in_use_message(held, "VESTAL_MLX_PORT"), EXIT_BUSY)
    if error.errno == errno.EADDRNOTAVAIL:
        message = f"mlx.bind names {address}, which no interface of this machine has; correct or remove it"
        return CannotListen(message, EXIT_BUSY)
    if error.errno == errno.EACCES:
        message = f"port {port} may not be used without root; set VESTAL_MLX_PORT to one above 1023"
        return CannotListen(message, EXIT_CONFIG)
    message = f"{address} port {port} cannot be listened on ({error.strerror or error}); correct mlx.bind"
    return CannotListen(message, EXIT_CONFIG)


class Listeners:
    """Serves one application on several sockets, some of which are added while it runs.

    If the process inherited a socket for an address from its parent, that socket is used instead of a new
    one, and `are_inherited` is True.
    """

    def __init__(
        self, config: Config, telemetry: Telemetry, inherited: InheritedSockets | None = None
    ) -> None:
        self._port = config.mlx.port
        self._max_message_bytes = config.mlx.max_body_bytes
        self._addresses = listening_sockets.addresses(config.mlx.bind)
        self._inherited = inherited or InheritedSockets()
        self._sockets: list[socket.socket] = []
        self._telemetry = telemetry
        self._servers: list[tuple[HttpServer, asyncio.Task[None]]] = []
        self._hostname = socket.gethostname().lower()
        self._table = ConnectionTable(max_connections())
        self.bridge: str | None = None
        self._bridges: set[str] = set()  # all addresses that the bridge has had, whose sockets stay open
        self._is_accepting = True
        self.are_inherited = False

    def bind(self) -> None:
        """Listen on all configured addresses. If one of them fails, close the sockets and raise
        CannotListen.
        """
        try:
            for address in self._addresses:
                self._sockets.append(self._bind(address))
        except CannotListen:
            for sock in self._sockets:
                sock.close()
            raise

    def _bind(self, address: str) -> socket.socket:
        if (inherited := self._inherited.take(address, self._port)) is not None:
            self.are_inherited = True
            return inherited
        return bind(address, self._port)

    def host_names(self) -> frozenset[str]:
        """Return the names that a request's `Host` header may have for this machine, in addition to the fixed
        ones such as `localhost` (`access.HOST_NAMES`): its host name, also with `.local`, the configured
        addresses, and the address of the Docker bridge if there is one.
        """
        bridge = [self.bridge] if self.bridge else []
        return frozenset({self._hostname, f"{self._hostname}.local", *self._addresses, *bridge})

    def keyless_addresses(self) -> frozenset[str]:
        """Return the addresses of this machine at which no API key is needed: only the address of the Docker
        bridge, once the bridge exists.
        """
        return frozenset({self.bridge} if self.bridge else ())

    def serve(self, app: FastAPI) -> None:
        """Start to serve `app` on the sockets that `bind` opened."""
        self._serve(app, self._sockets)
        self._telemetry.emit("listening", addresses=self._addresses, port=self._port)

    async def follow_bridge(self, app: FastAPI) -> None:
        """Serve `app` on the Docker bridge's address once it exists, and after each change of the address.
        Runs until cancelled, or until `stop_accepting`.
        """
        last_failure = ""
        while self._is_accepting:
            address = await asyncio.to_thread(network.bridge_address)
            if not self._is_accepting:
                return
            if self._is_covered(address):
                self.bridge = address
            elif address:
                try:
                    self._serve(app, [self._bind(address)])
                    self._bridges.add(address)
                    self.bridge, last_failure = address, ""
                    self._telemetry.emit(
                        "listening", "the Docker bridge", addresses=[address], port=self._port
                    )
                except CannotListen as error:
                    if str(error) != last_failure:
                        last_failure = str(error)
                        self._telemetry.emit("listening_failed", last_failure, addresses=[address])
            await asyncio.sleep(BRIDGE_INTERVAL_S)

    def stop_accepting(self) -> None:
        """Accept no more connections in this process. Other processes that hold the same sockets go on
        accepting.
        """
        self._is_accepting = False
        for server, _ in self._servers:
            server.stop_accepting()
            asyncio.get_running_loop().call_soon(server.stop_accepting)  # its task may not have begun

    def open_connections(self, close_idle_for_s: float) -> int:
        """Close the connections that have been idle for `close_idle_for_s` seconds. Return how many
        connections are open, which may still include those that are being closed.
        """
        for connection in self._table.idle_since(asyncio.get_running_loop().time() - close_idle_for_s):
            connection.transport.close()
        return len(self._table)

    async def stop(self) -> None:
        """Close the listening sockets, then the connections, which get a few seconds to end by themselves."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers), return_exceptions=True)

    def _is_covered(self, address: str | None) -> bool:
        """Return whether a socket of this gateway already listens on the address, or on the wildcard 0.0.0.0,
        which includes it.
        """
        served = {*self._addresses, *self._bridges}
        return address in served or (bool(address) and "0.0.0.0" in self._addresses)

    def _serve(self, app: FastAPI, sockets: list[socket.socket]) -> None:
        from mlx_server.gateway.connections.http_protocol import HttpServer  # uvicorn: see main.py

        server = HttpServer(
            app, self._table, self._report_dropped, self._report_stuck, self._max_message_bytes
        )
        self._servers.append((server, asyncio.ensure_future(server.serve(sockets=sockets))))

    def _report_stuck(self, error: OSError) -> None:
        self._telemetry.emit("connections_not_accepted", f"new connections wait: {error.strerror}")

    def _report_dropped(self, count: int) -> None:
        cause = "there was no room for new connections"
        self._telemetry.emit("connections_dropped", cause, count=count)
