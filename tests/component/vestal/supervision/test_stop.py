"""Stopping real processes: each stop ends, reaps the process and leaves nothing of its group."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    Intensity,
    State,
    StoppedByHand,
    Strategy,
    SupervisorStopped,
    UnknownChild,
    WaitTimeout,
)

PATIENT = {"stop_timeout_s": DEADLINE_S}
"""Changes of the policy that let a child on a busy machine end by itself."""


async def test_stop_of_a_child_that_ignores_sigterm_kills_it_after_the_stop_timeout(
    supervisors, spec, file_probe, is_running, tmp_path
):
    supervisor = await supervisors.up(
        spec("ignores_term.py", tmp_path / "up", ready=file_probe(tmp_path / "up"))
    )
    pid = supervisor.status()["child"].process_pid
    began = time.monotonic()
    await supervisor.stop_child("child")
    assert 0.3 <= time.monotonic() - began < 10
    assert supervisors.events_named("child_killed")
    assert not is_running(pid)


async def test_stop_of_a_child_that_obeys_sigterm_ends_it_with_its_own_exit_code(
    supervisors, spec, file_probe, tmp_path: Path
):
    child = spec("waits.py", tmp_path / "up", ready=file_probe(tmp_path / "up"), policy=PATIENT)
    supervisor = await supervisors.up(child)
    await supervisor.stop()
    assert supervisors.events_named("child_exited")[0].fields["code"] == 0
    assert not supervisors.events_named("child_killed")


async def test_supervisor_whose_stop_has_begun_starts_no_child_that_it_has_stopped(
    supervisors, spec, file_probe, eventually, tmp_path: Path
):
    """A child that was started again during the stop once outlived its supervisor."""
    slow = spec(
        "ignores_term.py",
        tmp_path / "up",
        name="slow",
        ready=file_probe(tmp_path / "up"),
        policy={"stop_timeout_s": 2},
    )
    quick = spec("waits.py", tmp_path / "quick", name="quick", ready=file_probe(tmp_path / "quick"))
    supervisor = await supervisors.up(slow, quick)
    stop = asyncio.create_task(supervisor.stop())
    await eventually(lambda: supervisor.status()["quick"].state is State.STOPPED)
    for request in (supervisor.start_child, supervisor.restart_child, supervisor.hand_over_child):
        with pytest.raises(SupervisorStopped, match="quick was not started, because"):
            await request("quick")
    assert not stop.done()
    await stop
    assert supervisor.status()["quick"].state is State.STOPPED
    await supervisor.start()
    await supervisor.start_child("quick")


async def test_stop_of_a_suspended_child_ends_it_with_its_own_exit_code(
    supervisors, spec, file_probe, tmp_path: Path
):
    child = spec("waits.py", tmp_path / "up", ready=file_probe(tmp_path / "up"), policy=PATIENT)
    supervisor = await supervisors.up(child)
    pid = supervisor.status()["child"].process_pid
    os.kill(pid, signal.SIGSTOP)
    await supervisor.stop()
    assert supervisors.events_named("child_exited")[0].fields["code"] == 0
    assert not supervisors.events_named("child_killed")


async def test_stop_of_a_child_also_ends_its_grandchildren(
    supervisors, spec, file_probe, is_running, eventually, tmp_path
):
    grandchild_file = tmp_path / "grandchild"
    supervisor = await supervisors.up(
        spec("leaves_grandchild.py", grandchild_file, ready=file_probe(grandchild_file))
    )
    grandchild = int(grandchild_file.read_text())
    assert is_running(grandchild)
    await supervisor.stop_child("child")
    await eventually(lambda: not is_running(grandchild))


async def test_exit_of_a_child_ends_its_grandchildren(
    supervisors, spec, file_probe, is_running, eventually, tmp_path
):
    grandchild_file = tmp_path / "grandchild"
    supervisor = supervisors.make(
        spec("leaves_grandchild.py", grandchild_file, 78, ready=file_probe(Path("/nowhere")))
    )
    await supervisor.start()
    await supervisor.wait_for("child", {State.FAILED}, DEADLINE_S)
    await eventually(lambda: not is_running(int(grandchild_file.read_text())))


async def test_child_stopped_by_hand_refuses_a_restart_and_accepts_a_start(supervisors, spec):
    supervisor = await supervisors.up(spec("waits.py"))
    await supervisor.stop_child("child")
    with pytest.raises(StoppedByHand, match="child was stopped by hand; start it"):
        await supervisor.restart_child("child", "recovery")
    assert supervisor.status()["child"].state is State.STOPPED
    await supervisor.start_child("child")
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)


async def test_child_stopped_while_starting_or_started_while_stopping_ends_in_the_requested_state(
    supervisors, spec, file_probe, tmp_path
):
    supervisor = supervisors.make(
        spec("ignores_term.py", tmp_path / "up", ready=file_probe(tmp_path / "never"))
    )
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop_child("child"))
    await supervisors.wait_for_event("child_started")
    await supervisor.wait_for("child", {State.STOPPING}, DEADLINE_S)
    await supervisor.start_child("child")
    await stopping
    assert supervisor.status()["child"].state is State.STARTING
    await supervisor.stop_child("child")
    assert supervisor.status()["child"].state is State.STOPPED


async def test_restart_of_a_child_ends_the_old_process_and_launches_a_new_one(supervisors, spec, is_running):
    supervisor = await supervisors.up(spec("waits.py"))
    old = supervisor.status()["child"].process_pid
    await supervisor.restart_child("child", "asked on the page")
    status = await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    assert not is_running(old)
    assert status.process_pid != old
    assert supervisors.events_named("child_exited")[0].cause == "asked on the page"


async def test_supervisor_stops_and_reaps_its_children_in_reverse_order(supervisors, spec):
    supervisor = await supervisors.up(*(spec("waits.py", name=name) for name in "abc"))
    pids = [status.process_pid or 0 for status in supervisor.status().values()]
    await supervisor.stop()
    assert [event.component for event in supervisors.events_named("child_stopped")] == ["c", "b", "a"]
    for pid in pids:
        with pytest.raises(ChildProcessError):  # it was reaped: not even a zombie is left
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it does not wait


async def test_stopped_supervisor_can_be_started_again(supervisors, spec):
    supervisor = await supervisors.up(spec("waits.py"))
    await supervisor.stop()
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)


async def test_one_for_all_strategy_restarts_every_child_when_one_dies(supervisors, spec):
    specs = [spec("waits.py", name=name, policy={"intensity": Intensity(9)}) for name in "abc"]
    supervisor = await supervisors.up(*specs, strategy=Strategy.ONE_FOR_ALL)
    before = {name: status.process_pid for name, status in supervisor.status().items()}
    os.kill(before["b"] or 0, signal.SIGKILL)
    await supervisors.wait_for_event("child_ready", 6)
    after = {name: status.process_pid for name, status in supervisor.status().items()}
    assert not set(before.values()) & set(after.values())
    assert [event.component for event in supervisors.events_named("child_started")[3:]] == ["a", "b", "c"]


async def test_rest_for_one_strategy_starts_the_second_child_once_the_first_child_is_ready(
    supervisors, spec, file_probe, tmp_path: Path
):
    first = spec("waits.py", name="first", ready=file_probe(tmp_path / "go"))
    supervisor = supervisors.make(first, spec("waits.py", name="second"), strategy=Strategy.REST_FOR_ONE)
    await supervisor.start()
    assert supervisor.status()["second"].process_pid is None
    (tmp_path / "go").touch()
    await supervisor.wait_for("second", {State.READY}, DEADLINE_S)


async def test_unknown_child_error_lists_the_known_children(supervisors, spec):
    supervisor = supervisors.make(spec("waits.py", name="web"))
    with pytest.raises(UnknownChild, match="there is no child 'wbe'; there are: web"):
        await supervisor.start_child("wbe")


async def test_wait_for_a_state_that_times_out_raises_an_error_with_the_present_state(supervisors, spec):
    supervisor = await supervisors.up(spec("waits.py"))
    with pytest.raises(WaitTimeout, match=r"child was not open within 0.05 s; it is ready"):
        await supervisor.wait_for("child", {State.OPEN}, 0.05)
