"""The judgement of real servers that do not answer: suspended, computing, deadlocked, out of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from host_agent.services import process_activity
from tests.component.host_agent.conftest import WITHIN_S, suspend
from vestal.supervision import HealthCheck, ProbePolicy, ProbeResult, SystemClock
from vestal.supervision.health import health_check
from vestal.supervision.health.health_check import run_probe

PROGRAM = Path(__file__).resolve().parents[3] / "children" / "falls_silent.py"
TIMEOUT_S = 2.1  # the shortest in which a question shows that nobody serves those who wait
POLICY = ProbePolicy(interval_s=3.0, timeout_s=TIMEOUT_S, failures=3, busy_limit_s=600.0)
DESCRIPTORS = 32
Probe = Callable[[int], Awaitable[ProbeResult]]


class SilentServer:
    """A process of `falls_silent.py`, and a health check of it."""

    def __init__(self, port: int, descriptors: int) -> None:
        self.port = port
        command = [sys.executable, str(PROGRAM), str(port), str(descriptors)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._clients: list[socket.socket] = []

    async def probe(self, pid: int) -> ProbeResult:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return ProbeResult(b"200" in await reader.readline())
        finally:
            writer.close()

    def check(self, policy: ProbePolicy = POLICY) -> HealthCheck:
        return HealthCheck(self.probe, process_activity.reader(self.port), policy, SystemClock())

    async def until_it_answers(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(OSError):
                    if (await self.probe(0)).ok:
                        return
                await asyncio.sleep(0.02)

    def send(self, path: str) -> None:
        """Send a request that the server will not answer."""
        self._clients.append(socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S))
        self._clients[-1].sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())

    def end(self) -> None:
        for client in self._clients:
            client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
async def start(free_port: Callable[[], int]) -> AsyncIterator[Callable[..., object]]:
    made: list[SilentServer] = []

    async def start_server(descriptors: int = 0) -> SilentServer:
        made.append(SilentServer(free_port(), descriptors))
        await made[-1].until_it_answers()
        return made[-1]

    yield start_server
    for server in made:
        server.end()


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Hold connections that send nothing."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) for _ in range(count)]
    try:
        yield
    finally:
        for connection in held:
            connection.close()


async def test_silent_server_that_is_suspended_is_hung_after_two_short_probes(
    start, monkeypatch: pytest.MonkeyPatch
):
    timeouts_s: list[float] = []

    async def noting(probe: Probe, pid: int, timeout_s: float) -> ProbeResult:
        timeouts_s.append(timeout_s)
        return await run_probe(probe, pid, timeout_s)

    monkeypatch.setattr(health_check, "run_probe", noting)
    server = await start()
    suspend(server.process.pid)
    result = await server.check().settle(server.process.pid)
    assert result.hung
    assert "suspended (SIGSTOP)" in result.detail
    first, *later = timeouts_s
    assert first == TIMEOUT_S and max(later) <= TIMEOUT_S / 2, "the second question is shorter"


async def test_silent_server_that_uses_no_cpu_and_accepts_no_connection_is_hung(start):
    server = await start()
    server.send("/deadlock")
    result = await server.check().settle(server.process.pid)
    assert result.hung
    assert "does not work" in result.detail
    assert "waiting to be accepted" in result.detail


async def test_silent_server_using_cpu_is_busy_until_the_time_limit_and_then_hung(start):
    server = await start()
    server.send("/spin")
    check = server.check()
    result = await check.settle(server.process.pid)
    assert (result.alive, result.hung) == (True, False)
    assert "of CPU time" in result.detail
    short = server.check(ProbePolicy(timeout_s=0.3, interval_s=0.2, failures=2, busy_limit_s=1.5))
    async with asyncio.timeout(WITHIN_S):
        while not (result := await short.ask(server.process.pid)).hung:
            assert result.alive, "it computes all the time"
    # On a busy machine it may have to wait for a CPU at that moment.
    assert re.search(r"longer than 1\.5 s, although it (works|waits for a CPU)", result.detail)


async def test_silent_server_out_of_file_descriptors_counts_as_alive_and_answers_after_connections_close(
    start,
):
    """Earlier, 300 silent connections used up 256 descriptors, and a recovery pass ended the gateway."""
    server = await start(DESCRIPTORS)
    check = server.check()
    with idle_connections(server.port, DESCRIPTORS + 10):
        for _ in range(4):
            result = await check.settle(server.process.pid)
            assert result.alive and not result.answered, result.detail
        assert "waiting to be accepted" in result.detail
    await server.until_it_answers()
    async with asyncio.timeout(WITHIN_S):
        while not (await check.ask(server.process.pid)).answered:
            pass


async def test_health_check_forgets_an_unanswered_probe_once_the_server_answers(start):
    server = await start()
    check = server.check()
    suspend(server.process.pid)
    assert (await check.ask(server.process.pid)).hung is False
    os.kill(server.process.pid, signal.SIGCONT)
    async with asyncio.timeout(WITHIN_S):
        while not (await check.ask(server.process.pid)).ok:
            pass
    suspend(server.process.pid)
    assert (await check.ask(server.process.pid)).hung is False, "one question is not two"


async def test_health_check_with_a_thousand_simultaneous_callers_probes_once(start):
    server = await start()
    asked = 0

    async def probe(pid: int) -> ProbeResult:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return ProbeResult(True)

    check = HealthCheck(probe, None, POLICY, SystemClock())
    results = await asyncio.gather(*(check.settle(server.process.pid) for _ in range(1000)))
    assert asked == 1
    assert all(result.ok for result in results)
