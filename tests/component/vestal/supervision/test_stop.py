"""Every stop ends, reaped, and leaves nobody behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from vestal.supervision import Intensity, State, StoppedByHand, Strategy, UnknownChild, WaitTimeout


async def test_child_that_ignores_sigterm_is_killed_after_stop_timeout_s(
    house, spec, touched, runs, tmp_path
):
    supervisor = await house.up(spec("ignores_term.py", tmp_path / "up", ready=touched(tmp_path / "up")))
    pid = supervisor.status()["child"].process_pid
    began = time.monotonic()
    await supervisor.stop_child("child")
    assert 0.3 <= time.monotonic() - began < 3
    assert house.told("child_killed")
    assert not runs(pid)


async def test_child_that_obeys_ends_with_its_own_code(house, spec, touched, tmp_path: Path):
    supervisor = await house.up(spec("waits.py", tmp_path / "up", ready=touched(tmp_path / "up")))
    await supervisor.stop()
    assert house.told("child_exited")[0].fields["code"] == 0
    assert not house.told("child_killed")


async def test_child_that_is_suspended_still_ends_with_its_own_code(house, spec, touched, tmp_path: Path):
    supervisor = await house.up(spec("waits.py", tmp_path / "up", ready=touched(tmp_path / "up")))
    pid = supervisor.status()["child"].process_pid
    os.kill(pid, signal.SIGSTOP)
    await supervisor.stop()
    assert house.told("child_exited")[0].fields["code"] == 0
    assert not house.told("child_killed")


async def test_grandchildren_are_ended_with_their_group(house, spec, touched, runs, eventually, tmp_path):
    told = tmp_path / "grandchild"
    supervisor = await house.up(spec("leaves_grandchild.py", told, ready=touched(told)))
    grandchild = int(told.read_text())
    assert runs(grandchild)
    await supervisor.stop_child("child")
    await eventually(lambda: not runs(grandchild))


async def test_grandchildren_of_a_leader_that_ended_by_itself_are_ended(
    house, spec, touched, runs, eventually, tmp_path
):
    told = tmp_path / "grandchild"
    supervisor = house.supervisor(spec("leaves_grandchild.py", told, 78, ready=touched(Path("/nowhere"))))
    await supervisor.start()
    await supervisor.wait_for("child", {State.FAILED}, 5)
    await eventually(lambda: not runs(int(told.read_text())))


async def test_stop_by_hand_is_sticky(house, spec):
    supervisor = await house.up(spec("waits.py"))
    await supervisor.stop_child("child")
    with pytest.raises(StoppedByHand, match="child was stopped by hand; start it"):
        await supervisor.restart_child("child", "recovery")
    assert supervisor.status()["child"].state is State.STOPPED
    await supervisor.start_child("child")
    await supervisor.wait_for("child", {State.READY}, 5)


async def test_stop_while_starting_and_start_while_stopping_end_as_asked(house, spec, touched, tmp_path):
    supervisor = house.supervisor(spec("ignores_term.py", tmp_path / "up", ready=touched(tmp_path / "never")))
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop_child("child"))
    await house.until("child_started")
    await supervisor.wait_for("child", {State.STOPPING}, 5)
    await supervisor.start_child("child")
    await stopping
    assert supervisor.status()["child"].state is State.STARTING
    await supervisor.stop_child("child")
    assert supervisor.status()["child"].state is State.STOPPED


async def test_restart_asked_for_brings_a_new_process_and_ends_the_old_one_first(house, spec, runs):
    supervisor = await house.up(spec("waits.py"))
    old = supervisor.status()["child"].process_pid
    await supervisor.restart_child("child", "asked on the page")
    status = await supervisor.wait_for("child", {State.READY}, 5)
    assert not runs(old)
    assert status.process_pid != old
    assert house.told("child_exited")[0].cause == "asked on the page"


async def test_supervisor_stops_its_children_last_first(house, spec):
    supervisor = await house.up(*(spec("waits.py", name=name) for name in "abc"))
    pids = [status.process_pid or 0 for status in supervisor.status().values()]
    await supervisor.stop()
    assert [event.component for event in house.told("child_stopped")] == ["c", "b", "a"]
    for pid in pids:
        with pytest.raises(ChildProcessError):  # reaped: not even a zombie is left
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it does not wait


async def test_stopped_supervisor_starts_again(house, spec):
    supervisor = await house.up(spec("waits.py"))
    await supervisor.stop()
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, 5)


async def test_one_for_all_restarts_every_child_when_one_dies(house, spec):
    specs = [spec("waits.py", name=name, policy={"intensity": Intensity(9)}) for name in "abc"]
    supervisor = await house.up(*specs, strategy=Strategy.ONE_FOR_ALL)
    before = {name: status.process_pid for name, status in supervisor.status().items()}
    os.kill(before["b"] or 0, signal.SIGKILL)
    await house.until("child_ready", 6)
    after = {name: status.process_pid for name, status in supervisor.status().items()}
    assert not set(before.values()) & set(after.values())
    assert [event.component for event in house.told("child_started")[3:]] == ["a", "b", "c"]


async def test_rest_for_one_waits_for_those_before_it(house, spec, touched, tmp_path: Path):
    first = spec("waits.py", name="first", ready=touched(tmp_path / "go"))
    supervisor = house.supervisor(first, spec("waits.py", name="second"), strategy=Strategy.REST_FOR_ONE)
    await supervisor.start()
    assert supervisor.status()["second"].process_pid is None
    (tmp_path / "go").touch()
    await supervisor.wait_for("second", {State.READY}, 5)


async def test_unknown_child_is_named_with_those_there_are(house, spec):
    supervisor = house.supervisor(spec("waits.py", name="web"))
    with pytest.raises(UnknownChild, match="there is no child 'wbe'; there are: web"):
        await supervisor.start_child("wbe")


async def test_wait_for_what_does_not_come_says_what_is(house, spec):
    supervisor = await house.up(spec("waits.py"))
    with pytest.raises(WaitTimeout, match=r"child was not open within 0.05 s; it is ready"):
        await supervisor.wait_for("child", {State.OPEN}, 0.05)
