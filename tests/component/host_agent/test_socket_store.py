"""The watchdog keeps the gateway's sockets while no agent lives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from host_agent.services.mlx.gateway_sockets import GatewaySockets
from host_agent.watchdog import socket_store
from host_agent.watchdog.socket_store import SocketStore, StoreUnreachable
from vestal.config import load
from vestal.supervision import ChildSpec, Event
from vestal.web import acceptor
from vestal.web.listening_sockets import InheritedSockets


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket_store, "TIMEOUT_S", 60.0)  # caller and store must each be given a CPU
    made = SocketStore(tmp_path / "s")
    made.start()
    yield made
    made.stop()


async def test_socket_store_keeps_a_listening_socket_open_until_its_set_of_sockets_is_replaced(
    store, tmp_path
):
    listening = acceptor.bind("127.0.0.1", 0)
    address = listening.getsockname()
    path = tmp_path / "s"
    await asyncio.to_thread(socket_store.put, path, [listening])
    listening.close()
    socket.create_connection(address).close()
    for _ in range(2):
        (back,) = await asyncio.to_thread(socket_store.take_back, path)
        assert back.getsockname() == address
        assert not os.get_inheritable(back.fileno())
        back.close()
    await asyncio.to_thread(socket_store.put, path, [])
    assert await asyncio.to_thread(socket_store.take_back, path) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_socket_store_survives_callers_that_send_nonsense_or_nothing(store, tmp_path):
    for sent in (b"", b"get\xff", b"x" * 1000):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(tmp_path / "s"))
            if sent:
                caller.sendall(sent)
        await asyncio.sleep(0.05)
    assert await asyncio.to_thread(socket_store.take_back, tmp_path / "s") == []


def test_socket_store_that_does_not_exist_raises_store_unreachable(tmp_path):
    with pytest.raises(StoreUnreachable):
        socket_store.take_back(tmp_path / "none")


@pytest.mark.timeout(300)
def test_connection_while_agent_and_gateway_are_killed_is_accepted_if_a_watchdog_runs(agent):
    """Earlier, after kill -9 of agent and gateway, connections were refused until the next gateway served."""
    gateway = agent.start("--hands-over", "--with-watchdog").gateway()
    kept = agent.home / "run" / "watchdog.sock"
    agent.until(lambda: _count(kept), "the watchdog has the socket")
    agent.kill()
    agent.process = None
    os.kill(gateway, signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", agent.mlx_port), timeout=30):
        pass
    agent.until(lambda: agent.ask("/health")[0] == 200, "the watchdog has started another agent", 50)
    new = json.loads((agent.home / "run" / "agent.json").read_text())["pid"]
    held = {c.laddr.port for c in psutil.Process(new).net_connections() if c.status == psutil.CONN_LISTEN}
    assert agent.mlx_port in held
    os.kill(new, signal.SIGTERM)
    agent.until(lambda: not agent.processes(), "everything ends", 100)


def _count(store: Path) -> int:
    try:
        back = socket_store.take_back(store)
    except StoreUnreachable:  # the watchdog does not listen yet
        return 0
    for each in back:
        each.close()
    return len(back)


async def test_gateway_started_within_a_second_of_its_stop_gets_its_sockets(store, tmp_path, free_port):
    """Earlier, the watchdog still kept the old sockets then, so that the agent could not bind the port: the
    gateway ran without the agent's sockets, and could not hand over.
    """
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path), "VESTAL_MLX_PORT": str(free_port())})

    async def keep(sockets: Sequence[socket.socket]) -> None:
        await asyncio.to_thread(socket_store.put, tmp_path / "s", sockets)

    sockets = GatewaySockets(config, InheritedSockets(), keep=keep)
    gateway = ChildSpec(name="mlx_server", command=(sys.executable, "-c", ""))
    await (await sockets.launch(gateway)).wait()
    await keep(sockets.held)  # the agent does so once a second
    addresses = [each.getsockname() for each in sockets.held]
    sockets.on_event(Event(0.0, 1, "mlx_server", "child_stopped", "by hand", {}))
    await (await sockets.launch(gateway)).wait()
    assert [each.getsockname() for each in sockets.held] == addresses != []
    sockets.close()
