"""Probes of children that are slow, hang, or never become ready."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    BreakerPolicy,
    ChildStatus,
    FakeClock,
    ProbePolicy,
    ProbeResult,
    State,
    Supervisor,
)


async def _until_open(supervisor: Supervisor, clock: FakeClock) -> ChildStatus:
    """Advance the clock until the breaker is open. However slow the machine is, the child is launched and
    probed before the first start timeout.
    """
    async with asyncio.timeout(DEADLINE_S):
        while supervisor.status()["child"].state is not State.OPEN:
            await clock.run_for(0.02)
            await asyncio.sleep(0.002)
    return supervisor.status()["child"]


async def test_child_is_ready_once_its_ready_probe_succeeds(supervisors, spec, file_probe, tmp_path: Path):
    supervisor = supervisors.make(spec("waits.py", tmp_path / "up", ready=file_probe(tmp_path / "up")))
    await supervisor.start()
    assert supervisor.status()["child"].state is State.STARTING
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    assert supervisors.events_named("child_ready")[0].fields["start_s"] > 0


async def test_child_that_is_not_ready_in_time_counts_as_a_failed_start(
    supervisors, spec, file_probe, tmp_path
):
    policy = {"start_timeout_s": 0.1, "breaker": BreakerPolicy(failures=2, open_s=60)}
    ready, clock = file_probe(tmp_path / "never"), FakeClock()
    child = spec("ignores_term.py", tmp_path / "up", ready=ready, policy=policy)
    supervisor = supervisors.make(child, clock=clock)
    await supervisor.start()
    status = await _until_open(supervisor, clock)
    assert "not ready within 0.1 s: never is not there" in status.detail
    assert len(supervisors.events_named("child_start_timed_out")) == 2


async def test_child_that_reports_loading_progress_may_take_longer_than_the_start_timeout(supervisors, spec):
    timeout_s = 2.5  # far longer than a busy machine takes from probe to probe
    began: list[float] = []

    async def ready(pid: int) -> ProbeResult:
        began.append(time.monotonic())
        loaded_s = time.monotonic() - began[0]
        if loaded_s > timeout_s + 0.2:
            return ProbeResult(True)
        return ProbeResult(False, f"loading for {loaded_s} s", State.STARTING, progress=int(loaded_s * 1e6))

    supervisor = supervisors.make(spec("waits.py", ready=ready, policy={"start_timeout_s": timeout_s}))
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    assert not supervisors.events_named("child_start_timed_out")
    assert supervisors.events_named("child_ready")[0].fields["start_s"] > timeout_s


async def test_child_that_stops_answering_its_health_probe_is_restarted(
    supervisors, spec, free_port, tmp_path: Path
):
    port = free_port()

    async def health(pid: int) -> ProbeResult:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return ProbeResult(b"200" in await reader.readline())
        finally:
            writer.close()

    child = spec("answers_http.py", port, tmp_path / "hang", ready=health, health=health)
    supervisor = await supervisors.up(child)
    pid = supervisor.status()["child"].process_pid
    (tmp_path / "hang").touch()
    failed = await supervisors.wait_for_event("health_failed")
    assert failed.fields["pid"] == pid
    assert "no answer within 0.2 s" in failed.cause
    (tmp_path / "hang").unlink()
    status = await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    assert status.process_pid != pid


async def test_ready_probe_that_raises_counts_as_failed_with_the_error_as_reason(supervisors, spec):
    async def ready(pid: int) -> ProbeResult:
        raise ConnectionRefusedError("nobody listens on 11435")

    policy, clock = {"start_timeout_s": 0.1, "breaker": BreakerPolicy(failures=1)}, FakeClock()
    supervisor = supervisors.make(spec("waits.py", ready=ready, policy=policy), clock=clock)
    await supervisor.start()
    status = await _until_open(supervisor, clock)
    assert "nobody listens on 11435" in status.detail


async def test_health_of_a_child_is_probed_at_once_when_the_machine_wakes(supervisors, spec):
    asked = asyncio.Event()

    async def health(pid: int) -> ProbeResult:
        asked.set()
        return ProbeResult(True)

    probe = ProbePolicy(interval_s=3600)
    supervisor = await supervisors.up(spec("waits.py", health=health, policy={"probe": probe}))
    assert not asked.is_set()
    supervisor.machine_woke(8 * 3600)
    async with asyncio.timeout(DEADLINE_S):
        await asked.wait()
    assert supervisors.events_named("machine_woke")[0].fields["slept_s"] == 8 * 3600
