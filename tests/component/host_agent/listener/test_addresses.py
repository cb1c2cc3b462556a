"""The addresses at which the agent listens: those of its settings, and that of Docker's bridge."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener import server
from host_agent.listener.context import ListenerContext
from host_agent.listener.proxy.routes import Upstream, Upstreams
from host_agent.listener.server import CannotListen, Listener
from host_agent.listener.sessions import Sessions
from host_agent.recovery.restart_budget import RestartBudget
from vestal.config import ensure_token, load
from vestal.web import acceptor
from vestal.web.listening_sockets import InheritedSockets

BRIDGE = "127.0.0.2"


@pytest.fixture
def make_listener(home: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., SimpleNamespace]]:
    """A function that returns a listener with its port and journal. The listener has inherited a socket for
    each address and port in `inherits`; None stands for the listener's own port.
    """
    journals: list[Journal] = []

    def make(inherits: Sequence[tuple[str, int | None]] = (), **environment: str) -> SimpleNamespace:
        port = free_port()
        own = {"HOME": str(home), "VESTAL_HOME": str(home), "VESTAL_AGENT_PORT": str(port)}
        config = load({**own, **environment}, home)
        config.home.prepare()
        token, journal = ensure_token(config.home), Journal(config.home.journal_db)
        journals.append(journal)
        nothing = cast(Any, None)
        context = ListenerContext(
            status_report=cast(Any, SimpleNamespace(retry_advice=None)),
            passes=nothing,
            restart_budget=RestartBudget(),
            journal=journal,
            service_control=nothing,
            sessions=Sessions(token),
            upgrades=nothing,
            upstreams=Upstreams(nothing, dict.fromkeys(Upstream, port), ""),
            incidents=Incidents(journal),
            history=nothing,
        )
        sockets = [acceptor.bind(address, other or port) for address, other in inherits]
        listener = Listener(config, token, context, journal, InheritedSockets(sockets))
        return SimpleNamespace(listener=listener, port=port, journal=journal)

    yield make
    for journal in journals:
        journal.close()


async def test_agent_with_an_address_of_another_machine_cannot_listen_and_names_the_setting(make_listener):
    """Earlier, the agent ended with "the disk: Cannot assign requested address"."""
    made = make_listener(VESTAL_AGENT__BIND='["192.0.2.1"]')
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1.*\(.*assign.*\): correct agent\.bind"):
        await made.listener.start()
    await made.listener.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac has only one loopback address, and no bridge")
async def test_bridge_address_whose_port_was_taken_is_listened_at_once_the_port_is_free(
    make_listener, monkeypatch: pytest.MonkeyPatch
):
    """Earlier, an address at which the agent could not listen once was never tried again."""
    monkeypatch.setattr(server, "BRIDGE_EACH_S", 0.02)
    tries = 0

    def bridge_address() -> str:
        nonlocal tries
        tries += 1
        return BRIDGE

    monkeypatch.setattr(server, "network", SimpleNamespace(bridge_address=bridge_address))
    made = make_listener()
    listener, port, journal = made.listener, made.port, made.journal
    with socket.create_server((BRIDGE, port)):
        await listener.start()
        await _until(lambda: tries > 5)
    await _until(lambda: len(journal.since(0)) > 1)
    # The Host header may have the bridge's address also on another connection, such as a tunnel's.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /health HTTP/1.0\r\nHost: {BRIDGE}:{port}\r\n\r\n".encode())
    assert b" 200 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    _, writer = await asyncio.open_connection(BRIDGE, port)
    writer.close()
    await writer.wait_closed()
    first, second = journal.since(0)
    assert (first["event"], second["event"]) == ("address_not_bound", "address_bound")
    assert f"port {port} is held by" in first["cause"]
    await listener.stop()


async def _until(is_reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_reached():  # noqa: ASYNC110 - a counter and a table are read
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
async def test_upgraded_agent_whose_bind_setting_was_changed_listens_at_the_new_address(
    make_listener, before: str, after: str
):
    """Earlier, it still held the socket of the old address, and ended with "the port is held by" itself."""
    made = make_listener(VESTAL_AGENT__BIND=f'["{after}"]', inherits=[(before, None)])
    await made.listener.start()
    (listening,) = made.listener.duplicate_sockets()
    assert listening.getsockname() == (after, made.port)
    listening.close()
    await made.listener.stop()


async def test_upgraded_agent_that_listens_everywhere_closes_the_old_socket_of_the_gateway(
    make_listener, free_port
):
    """Earlier, a socket of the gateway's old address stayed open in the agent, so that the next gateway could
    not bind 0.0.0.0, and a client of the old port waited for an answer that nobody gave.
    """
    gateway_port = free_port()
    made = make_listener(
        VESTAL_AGENT__BIND='["0.0.0.0"]', inherits=[("0.0.0.0", None), ("127.0.0.1", gateway_port)]
    )
    await made.listener.start()
    acceptor.bind("0.0.0.0", gateway_port).close()
    await made.listener.stop()
