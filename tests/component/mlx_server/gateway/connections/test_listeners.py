"""The sockets that the gateway listens on."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.gateway.connections import listeners
from mlx_server.gateway.connections.listeners import Listeners, bind
from vestal.platform import network
from vestal.web.listening_sockets import InheritedSockets


async def test_connection_accepted_from_the_gateways_socket_has_tcp_nodelay_set():
    """asyncio sets TCP_NODELAY only on a socket whose protocol is named.

    Without it a response's body waited for the acknowledgment of its headers: 44 ms a request on Linux.
    """
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = bind("127.0.0.1", 0)
    async with await asyncio.start_server(note, sock=listening), asyncio.timeout(30):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        assert await accepted != 0
        writer.close()
        await writer.wait_closed()


class BridgeSockets(InheritedSockets):
    """Has one socket for each address of the Docker bridge, although no interface has this address."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, socket.socket] = {}

    def take(self, address: str, port: int) -> socket.socket | None:
        if address in self.taken:
            return None
        self.taken[address] = bind("127.0.0.1", 0)
        return self.taken[address]


class Bridge:
    """Follows the address of a Docker bridge, which the test sets. `events` are those of the telemetry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = None
        self.looks = 0
        self.may_look = threading.Event()
        self.may_look.set()
        self.events: list[str] = []
        self.sockets = BridgeSockets()
        monkeypatch.setattr(network, "bridge_address", self._look)
        monkeypatch.setattr(listeners, "BRIDGE_INTERVAL_S", 0.001)
        config: Any = SimpleNamespace(mlx=SimpleNamespace(port=11435, max_body_bytes=10**6, bind=[]))
        self.stops_accepting_at_once = False
        telemetry: Any = SimpleNamespace(emit=self._emit)
        self.listeners = Listeners(config, telemetry, self.sockets)
        self.following = asyncio.ensure_future(self.listeners.follow_bridge(_application))  # type: ignore[arg-type]

    def _emit(self, event: str, cause: str = "", **fields: Any) -> None:
        self.events.append(event)
        if self.stops_accepting_at_once:
            self.listeners.stop_accepting()

    def _look(self) -> str | None:
        self.looks += 1
        self.may_look.wait(60)
        return self.address

    async def until_looked(self, times: int) -> None:
        looks = self.looks + times
        async with asyncio.timeout(30):
            while self.looks < looks:  # noqa: ASYNC110 - a thread counts them
                await asyncio.sleep(0.001)

    async def change(self, address: str) -> None:
        self.address = address
        await self.until_looked(3)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


@pytest.fixture
async def bridge(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Bridge(monkeypatch)
    yield made
    made.following.cancel()
    made.listeners.stop_accepting()
    await made.listeners.stop()


async def test_bridge_address_that_changes_and_changes_back_is_served_again(bridge):
    """The gateway's own socket was in the way: the address was "held by" the gateway itself, for ever."""
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        await bridge.change(address)
        assert bridge.listeners.keyless_addresses() == {address}
    assert bridge.events == ["listening", "listening"]


async def test_bridge_address_found_after_the_listeners_stopped_accepting_is_not_served(bridge):
    bridge.may_look.clear()
    await bridge.until_looked(1)  # which has begun after that, and so does not end yet
    bridge.address = "192.0.2.1"
    bridge.listeners.stop_accepting()
    bridge.may_look.set()
    await asyncio.wait_for(bridge.following, 30)
    assert (bridge.sockets.taken, bridge.listeners.bridge) == ({}, None)


async def test_server_whose_start_coincides_with_the_stop_of_the_listeners_is_closed(bridge):
    bridge.stops_accepting_at_once = True
    bridge.address = "192.0.2.1"
    await asyncio.wait_for(bridge.following, 30)
    assert bridge.events == ["listening"]
    assert bridge.sockets.taken["192.0.2.1"].fileno() == -1, "closed"
