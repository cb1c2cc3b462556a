"""Where the gateway listens: loopback, what `mlx.bind` names, and the Docker bridge as soon as it exists.

The bridge's address is what `host-gateway` names inside containers on Linux; it comes with the Docker engine,
which may start later than we do. Never 0.0.0.0 unless configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI

from mlx_server.gateway.telemetry import Telemetry
from vestal.config import Config
from vestal.platform import network, ports

LOOPBACK = "127.0.0.1"
EVERYWHERE = frozenset({"0.0.0.0", "::"})
BRIDGE_INTERVAL_S = 5.0
BACKLOG = 2048
CONNECTIONS_END_S = 3
EXIT_BUSY = 75  # EX_TEMPFAIL: the port may become free, so it is tried again
EXIT_CONFIG = 78


class CannotListen(Exception):
    """One sentence with the remedy, and the exit code that says whether trying again may help."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def bind(address: str, port: int) -> socket.socket:
    """A bound socket. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot(error, address, port) from error
    sock.setblocking(False)
    return sock


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


def _addresses(configured: list[str]) -> list[str]:
    """Loopback and what is configured; a wildcard takes the place of all others of its family."""
    wanted = dict.fromkeys([LOOPBACK, *("127.0.0.1" if a == "localhost" else a for a in configured)])
    return [a for a in wanted if a in EVERYWHERE or ("::" if ":" in a else "0.0.0.0") not in wanted]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the program's; it drains first."""
        yield


class Listeners:
    """Serves one application on sockets that may come later."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        self._port = config.mlx.port
        self._addresses = _addresses(config.mlx.bind)
        self._sockets: list[socket.socket] = []
        self._telemetry = telemetry
        self._servers: list[tuple[_Server, asyncio.Task[None]]] = []
        self._hostname = socket.gethostname().lower()
        self.bridge: str | None = None

    def bind(self) -> None:
        """Takes all configured addresses, or none. Raises CannotListen."""
        try:
            for address in self._addresses:
                self._sockets.append(bind(address, self._port))
        except CannotListen:
            for sock in self._sockets:
                sock.close()
            raise

    def names(self) -> frozenset[str]:
        """What this machine may be called in a `Host` header, besides the usual names."""
        bridge = [self.bridge] if self.bridge else []
        return frozenset({self._hostname, f"{self._hostname}.local", *self._addresses, *bridge})

    def keyless(self) -> frozenset[str]:
        return frozenset({self.bridge} if self.bridge else ())

    def serve(self, app: FastAPI) -> None:
        """Starts serving on what `bind` took."""
        self._serve(app, self._sockets)
        self._telemetry.emit("listening", addresses=self._addresses, port=self._port)

    async def follow_bridge(self, app: FastAPI) -> None:
        """Serves on the bridge's address whenever there is a new one, for as long as it runs."""
        complaint = ""
        while True:
            address = await asyncio.to_thread(network.bridge_address)
            if self._is_covered(address):
                self.bridge = address
            elif address and address != self.bridge:
                try:
                    self._serve(app, [bind(address, self._port)])
                    self.bridge, complaint = address, ""
                    self._telemetry.emit(
                        "listening", "the Docker bridge", addresses=[address], port=self._port
                    )
                except CannotListen as error:
                    if str(error) != complaint:
                        complaint = str(error)
                        self._telemetry.emit("listening_failed", complaint, addresses=[address])
            await asyncio.sleep(BRIDGE_INTERVAL_S)

    async def stop(self) -> None:
        """Closes the listeners and gives open connections a moment to end."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers), return_exceptions=True)

    def _is_covered(self, address: str | None) -> bool:
        """Whether it is listened on anyway."""
        return address in self._addresses or (bool(address) and "0.0.0.0" in self._addresses)

    def _serve(self, app: FastAPI, sockets: list[socket.socket]) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CONNECTIONS_END_S,
        )
        server = _Server(config)
        self._servers.append((server, asyncio.ensure_future(server.serve(sockets=sockets))))
