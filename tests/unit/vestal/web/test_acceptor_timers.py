"""The timer of an acceptor, which wakes the process only while there are connections."""

from __future__ import annotations

import asyncio
import socket

from vestal.web import acceptor
from vestal.web.acceptor import Acceptor
from vestal.web.connections import ConnectionTable


class Protocol(asyncio.Protocol):
    def __init__(self, table: ConnectionTable) -> None:
        self._table = table

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = self._table.opened(transport, asyncio.get_running_loop().time())

    def connection_lost(self, exc: BaseException | None) -> None:
        self._table.closed(self._connection)


async def test_acceptor_timer_runs_only_while_a_connection_is_open(monkeypatch):
    monkeypatch.setattr(acceptor, "SWEEP_EACH_S", 0.05)
    table, listening = ConnectionTable(10), acceptor.bind("127.0.0.1", 0)
    serving = Acceptor(listening, lambda: Protocol(table), table)
    serving.start()
    assert not _has_timer(serving)
    with socket.create_connection(listening.getsockname()):
        await _until(lambda: len(table) == 1)
        await asyncio.sleep(0.12)
        assert _has_timer(serving)
    await _until(lambda: len(table) == 0 and not _has_timer(serving))
    serving.close()


def _has_timer(serving: Acceptor) -> bool:
    return "sweep" in serving._timers


async def _until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.01)
