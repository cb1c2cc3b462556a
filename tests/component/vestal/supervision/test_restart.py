"""Real child processes that die."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    Backoff,
    BreakerPolicy,
    FakeClock,
    Intensity,
    JsonStateStore,
    RestartType,
    State,
)


async def test_restart_of_a_killed_child_takes_at_most_100_ms(supervisors, spec):
    """Five of up to sixty restarts, because the machine may be busy with something else."""
    supervisor = await supervisors.up(spec("waits.py", policy={"intensity": Intensity(100, 300)}))
    took: list[float] = []
    while len(took) < 60 and sum(seconds < 0.1 for seconds in took) < 5:
        pid = supervisor.status()["child"].process_pid
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await supervisors.wait_for_event("child_started", len(took) + 2)
        took.append(time.perf_counter() - began)
    assert sum(seconds < 0.1 for seconds in took) == 5, took


async def test_killed_child_is_reaped_reported_and_restarted(supervisors, spec, is_running):
    supervisor = await supervisors.up(spec("waits.py"))
    pid = supervisor.status()["child"].process_pid
    os.kill(pid, signal.SIGKILL)
    exited = await supervisors.wait_for_event("child_exited")
    assert (exited.fields["pid"], exited.fields["signal"], exited.fields["code"]) == (pid, 9, None)
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    status = supervisor.status()["child"]
    assert status.process_pid != pid
    assert status.restart_count == 1
    assert status.last_exit is not None
    assert status.last_exit.signal == 9
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_child_that_fails_to_start_is_retried_with_growing_delays_until_its_breaker_opens(
    supervisors, spec, tmp_path: Path
):
    policy = {"breaker": BreakerPolicy(failures=3, open_s=0.2, max_open_s=0.8)}
    never = lambda pid: asyncio.sleep(3600)  # noqa: E731
    child = spec(
        "exits.py", 3, "no module named mlx", policy=policy, ready=never, log_path=tmp_path / "a.log"
    )
    supervisor = supervisors.make(child)
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, DEADLINE_S)
    assert status.detail == "exit code 3: no module named mlx"
    assert status.circuit_breaker_state == "open"
    assert [event.fields["delay_s"] for event in supervisors.events_named("child_restarting")] == [0.05, 0.1]
    await supervisors.wait_for_event("breaker_opened", 2)
    assert [event.fields["open_s"] for event in supervisors.events_named("breaker_opened")] == [0.2, 0.4]
    assert len(supervisors.events_named("breaker_half_opened")) == 1
    assert supervisor.gave_up
    assert supervisors.events_named("supervisor_gave_up")


async def test_restart_of_a_killed_child_waits_for_its_doubling_backoff_delay(supervisors, spec):
    clock = FakeClock()
    policy = {"backoff": Backoff(2, 60), "stable_after_s": 10}
    supervisor = await supervisors.up(spec("waits.py", policy=policy), clock=clock)
    for n, delay_s in enumerate((2, 4, 8)):
        os.kill(supervisor.status()["child"].process_pid, signal.SIGKILL)
        await supervisor.wait_for("child", {State.BACKOFF}, DEADLINE_S)
        await clock.run_for(delay_s - 0.01)
        assert supervisor.status()["child"].state is State.BACKOFF
        await clock.run_for(0.02)
        await supervisors.wait_for_event("child_ready", n + 2)
    assert [event.fields["delay_s"] for event in supervisors.events_named("child_restarting")] == [2, 4, 8]


async def test_child_that_exits_with_78_fails_without_a_restart(supervisors, spec, tmp_path: Path):
    child = spec("exits.py", 78, "unknown key mlx.prot", log_path=tmp_path / "logs" / "a.log")
    supervisor = supervisors.make(child)
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.FAILED}, DEADLINE_S)
    assert status.detail == "exit code 78: unknown key mlx.prot"
    assert len(supervisors.events_named("child_started")) == 1
    assert supervisors.events_named("child_gave_up")


async def test_child_whose_program_is_missing_names_the_program_in_its_status(supervisors, spec):
    child = spec("waits.py", policy={"breaker": BreakerPolicy(failures=1)})
    supervisor = supervisors.make(
        type(child)(name="child", command=("no-such-program",), policy=child.policy)
    )
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, DEADLINE_S)
    assert "no-such-program was not found" in status.detail


async def test_child_that_aborts_has_sigabrt_as_its_last_exit(supervisors, spec):
    supervisor = supervisors.make(spec("aborts.py", restart=RestartType.TEMPORARY))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.STOPPED}, DEADLINE_S)
    assert status.last_exit is not None
    assert status.last_exit.signal == signal.SIGABRT


async def test_transient_child_that_exits_with_code_0_is_not_restarted(supervisors, spec):
    supervisor = supervisors.make(spec("exits.py", 0, restart=RestartType.TRANSIENT))
    await supervisor.start()
    await supervisor.wait_for("child", {State.STOPPED}, DEADLINE_S)
    assert len(supervisors.events_named("child_started")) == 1


async def test_child_restarted_more_often_than_allowed_opens_its_breaker(supervisors, spec):
    supervisor = await supervisors.up(spec("waits.py", policy={"intensity": Intensity(2, 300)}))
    for n in range(3):
        os.kill(supervisor.status()["child"].process_pid, signal.SIGKILL)
        await supervisors.wait_for_event("child_exited", n + 1)
        await supervisor.wait_for("child", {State.READY, State.OPEN}, DEADLINE_S)
    assert supervisor.status()["child"].state is State.OPEN
    assert "2 restarts within 300 s" in supervisors.events_named("breaker_opened")[0].cause


async def test_restart_of_a_killed_child_waits_for_the_configured_settle_time(supervisors, spec):
    supervisor = await supervisors.up(spec("waits.py", policy={"settle_after_kill_s": 0.3}))
    began = time.monotonic()
    os.kill(supervisor.status()["child"].process_pid, signal.SIGKILL)
    await supervisors.wait_for_event("child_started", 2)
    assert time.monotonic() - began >= 0.3


async def test_open_breaker_and_manual_stop_of_a_child_are_kept_by_the_next_supervisor(
    supervisors, spec, tmp_path: Path
):
    policy = {"breaker": BreakerPolicy(failures=1, open_s=1000)}
    never = lambda pid: asyncio.sleep(3600)  # noqa: E731
    specs = (spec("exits.py", 1, name="broken", policy=policy, ready=never), spec("waits.py", name="off"))
    first = supervisors.make(*specs, store=JsonStateStore(tmp_path / "state.json"))
    await first.start()
    await first.wait_for("broken", {State.OPEN}, DEADLINE_S)
    await first.stop_child("off")
    await first.stop()
    starts = len(supervisors.events_named("child_started"))

    second = supervisors.make(*specs, store=JsonStateStore(tmp_path / "state.json"))
    await second.start()
    assert second.status()["broken"].state is State.OPEN
    assert second.status()["off"].state is State.STOPPED
    assert len(supervisors.events_named("child_started")) == starts
    await second.start_child("off")
    await second.wait_for("off", {State.READY}, DEADLINE_S)
    await second.start_child("broken", reset=True)
    assert len(supervisors.events_named("child_started")) == starts + 2
