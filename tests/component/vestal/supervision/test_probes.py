"""Children that are slow, hang, or never come up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vestal.supervision import BreakerPolicy, ProbePolicy, ProbeResult, State


async def test_ready_is_when_the_probe_says_so(house, spec, touched, tmp_path: Path):
    supervisor = house.supervisor(spec("waits.py", tmp_path / "up", ready=touched(tmp_path / "up")))
    await supervisor.start()
    assert supervisor.status()["child"].state is State.STARTING
    await supervisor.wait_for("child", {State.READY}, 5)
    assert house.told("child_ready")[0].fields["start_s"] > 0


async def test_child_that_hangs_without_being_ready_is_ended_and_counts_as_failed(
    house, spec, touched, tmp_path
):
    policy = {"start_timeout_s": 0.1, "breaker": BreakerPolicy(failures=2, open_s=60)}
    ready = touched(tmp_path / "never")
    supervisor = house.supervisor(spec("ignores_term.py", tmp_path / "up", ready=ready, policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, 5)
    assert "not ready within 0.1 s: never is not there" in status.detail
    assert len(house.told("child_start_timed_out")) == 2


async def test_child_that_loads_for_longer_than_the_limit_comes_up(house, spec):
    asked = 0

    async def ready(pid: int) -> ProbeResult:
        nonlocal asked
        asked += 1
        if asked > 8:
            return ProbeResult(True)
        return ProbeResult(False, f"loading, {asked} of 8", State.STARTING, progress=asked)

    supervisor = house.supervisor(spec("waits.py", ready=ready, policy={"start_timeout_s": 0.6}))
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, 8)
    assert not house.told("child_start_timed_out")
    assert house.told("child_ready")[0].fields["start_s"] > 0.6


async def test_server_that_stops_answering_is_restarted(house, spec, free_port, tmp_path: Path):
    port = free_port()

    async def health(pid: int) -> ProbeResult:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return ProbeResult(b"200" in await reader.readline())
        finally:
            writer.close()

    child = spec("answers_http.py", port, tmp_path / "hang", ready=health, health=health)
    supervisor = await house.up(child)
    pid = supervisor.status()["child"].process_pid
    (tmp_path / "hang").touch()
    failed = await house.until("health_failed")
    assert failed.fields["pid"] == pid
    assert "no answer within 0.2 s" in failed.cause
    (tmp_path / "hang").unlink()
    status = await supervisor.wait_for("child", {State.READY}, 8)
    assert status.process_pid != pid


async def test_probe_that_raises_is_a_failure_with_its_reason(house, spec):
    async def ready(pid: int) -> ProbeResult:
        raise ConnectionRefusedError("nobody listens on 11435")

    policy = {"start_timeout_s": 0.1, "breaker": BreakerPolicy(failures=1)}
    supervisor = house.supervisor(spec("waits.py", ready=ready, policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, 5)
    assert "nobody listens on 11435" in status.detail


async def test_child_is_asked_at_once_when_the_machine_wakes(house, spec):
    asked = asyncio.Event()

    async def health(pid: int) -> ProbeResult:
        asked.set()
        return ProbeResult(True)

    probe = ProbePolicy(interval_s=3600)
    supervisor = await house.up(spec("waits.py", health=health, policy={"probe": probe}))
    assert not asked.is_set()
    supervisor.machine_woke(8 * 3600)
    async with asyncio.timeout(5):
        await asked.wait()
    assert house.told("machine_woke")[0].fields["slept_s"] == 8 * 3600
