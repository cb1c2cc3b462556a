"""Supervisors that come and go while their children run on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from vestal.supervision import (
    MemoryStateStore,
    ProcessIdentity,
    State,
    read_pid_file,
    start_time,
    write_pid_file,
)
from vestal.supervision.processes.identity import boot_id

# A supervisor in a process of its own, which a test can kill as one kills an agent.
AGENT = """
import asyncio, sys
from pathlib import Path
from vestal.supervision import ChildSpec, State, Supervisor
async def main(pid_file, *command):
    log = Path(pid_file).with_suffix(".log")
    supervisor = Supervisor([ChildSpec("child", command, log_path=log, pid_file=Path(pid_file))])
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, 10)
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def agent(pid_file: Path, command: tuple[str, ...], repo: Path) -> int:
    """The PID of an agent whose child is up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(pid_file), *command, cwd=repo, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    return process.pid


async def test_child_of_a_killed_agent_is_adopted_and_its_end_seen(house, spec, repo, tmp_path, runs):
    pid_file = tmp_path / "run" / "child.json"
    child = spec("waits.py", pid_file=pid_file)
    await agent(pid_file, child.command, repo)
    left = read_pid_file(pid_file)
    assert left is not None
    assert runs(left.pid)

    supervisor = await house.up(child)
    assert supervisor.status()["child"].process_pid == left.pid
    assert house.told("child_adopted")
    assert not house.told("child_started")

    os.kill(left.pid, signal.SIGKILL)
    await house.until("child_started")
    assert house.told("child_exited")[0].fields["pid"] == left.pid
    fresh = read_pid_file(pid_file)
    assert fresh is not None
    assert fresh.pid == supervisor.status()["child"].process_pid != left.pid


async def test_adopted_child_is_ended_with_its_group(house, spec, repo, tmp_path, runs, eventually):
    pid_file, told = tmp_path / "child.json", tmp_path / "grandchild"
    child = spec("leaves_grandchild.py", told, pid_file=pid_file)
    await agent(pid_file, child.command, repo)
    await eventually(told.exists)
    supervisor = await house.up(child)
    pid = supervisor.status()["child"].process_pid
    await supervisor.stop()
    await eventually(lambda: not runs(pid) and not runs(int(told.read_text())))
    assert not pid_file.exists()


async def test_child_of_a_killed_agent_that_may_not_stay_is_ended_first(house, spec, repo, tmp_path, runs):
    pid_file = tmp_path / "child.json"
    child = spec("waits.py", pid_file=pid_file, adopt=False)
    await agent(pid_file, child.command, repo)
    left = read_pid_file(pid_file)
    assert left is not None
    supervisor = await house.up(child)
    assert supervisor.status()["child"].process_pid != left.pid
    assert not runs(left.pid)
    names = [event.event for event in house.events]
    assert names.index("child_exited") < names.index("child_started")


async def test_what_a_dead_leader_left_of_its_group_is_killed_at_the_start(
    house, spec, repo, tmp_path, runs, eventually
):
    pid_file, told = tmp_path / "child.json", tmp_path / "grandchild"
    command = spec("leaves_grandchild.py", told).command
    await agent(pid_file, command, repo)
    await eventually(told.exists)
    left = read_pid_file(pid_file)
    assert left is not None
    os.kill(left.pid, signal.SIGKILL)
    await eventually(lambda: not runs(left.pid))
    grandchild = int(told.read_text())
    assert runs(grandchild)
    await house.up(spec("waits.py", pid_file=pid_file))
    assert house.told("leftovers_killed")
    await eventually(lambda: not runs(grandchild))


async def test_detached_child_runs_on_and_the_next_supervisor_reaps_it(house, spec, tmp_path, runs):
    child = spec("waits.py", pid_file=tmp_path / "child.json")
    first = await house.up(child)
    pid = first.status()["child"].process_pid
    await first.detach()
    assert runs(pid)
    house.supervisors.clear()
    second = await house.up(child)
    assert second.status()["child"].process_pid == pid
    await second.stop()
    assert not runs(pid)
    assert house.told("child_exited")[-1].fields["pid"] == pid


async def test_pid_used_again_by_a_stranger_is_left_alone(house, spec, tmp_path, runs):
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    started = start_time(stranger.pid)
    assert started is not None
    pid_file = tmp_path / "child.json"
    write_pid_file(pid_file, ProcessIdentity(stranger.pid, started - 5, boot_id()))
    supervisor = await house.up(spec("waits.py", pid_file=pid_file))
    assert supervisor.status()["child"].process_pid != stranger.pid
    assert runs(stranger.pid)
    assert json.loads(pid_file.read_text())["pid"] == supervisor.status()["child"].process_pid
    stranger.kill()
    await stranger.wait()


async def test_running_child_that_was_stopped_by_hand_is_ended(house, spec, tmp_path, runs):
    """The agent was killed in the middle of the stop."""
    child = spec("waits.py", pid_file=tmp_path / "child.json")
    first = await house.up(child)
    pid = first.status()["child"].process_pid
    await first.detach()
    house.supervisors.clear()
    store = MemoryStateStore()
    record = {"open": False, "failures": 0, "opens": 0, "until": 0}
    store.save("child", {"stopped_by_hand": True, "breaker": record, "restarts": []})
    second = house.supervisor(child, store=store)
    await second.start()
    await second.wait_for("child", {State.STOPPED}, 5)
    assert not runs(pid)
