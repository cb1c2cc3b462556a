"""Supervisors that find the processes of an earlier supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from host_agent.services.find_process import find_supervised
from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    MemoryStateStore,
    ProcessIdentity,
    State,
    read_pid_file,
    start_time,
    write_pid_file,
)
from vestal.supervision.processes.identity import boot_id

# A supervisor in its own process, which a test can kill.
SUPERVISOR_PROGRAM = """
import asyncio, sys
from pathlib import Path
from vestal.supervision import ChildSpec, State, Supervisor
async def main(pid_file, *command):
    log = Path(pid_file).with_suffix(".log")
    supervisor = Supervisor([ChildSpec("child", command, log_path=log, pid_file=Path(pid_file))])
    await supervisor.start()
    await supervisor.wait_for("child", {State.READY}, 30)
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def start_and_kill_supervisor(pid_file: Path, command: tuple[str, ...], repo: Path) -> None:
    """Start a supervisor in its own process, and kill that process once its child is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SUPERVISOR_PROGRAM,
        str(pid_file),
        *command,
        cwd=repo,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    await process.communicate()


async def test_child_of_a_killed_supervisor_is_adopted_and_restarted_when_it_dies(
    supervisors, spec, repo, tmp_path, is_running
):
    pid_file = tmp_path / "run" / "child.json"
    child = spec("waits.py", pid_file=pid_file)
    await start_and_kill_supervisor(pid_file, child.command, repo)
    left = read_pid_file(pid_file)
    assert left is not None
    assert is_running(left.pid)

    supervisor = await supervisors.up(child)
    assert supervisor.status()["child"].process_pid == left.pid
    assert supervisors.events_named("child_adopted")
    assert not supervisors.events_named("child_started")

    os.kill(left.pid, signal.SIGKILL)
    await supervisors.wait_for_event("child_started")
    assert supervisors.events_named("child_exited")[0].fields["pid"] == left.pid
    fresh = read_pid_file(pid_file)
    assert fresh is not None
    assert fresh.pid == supervisor.status()["child"].process_pid != left.pid


async def test_adopted_child_is_stopped_together_with_its_grandchildren(
    supervisors, spec, repo, tmp_path, is_running, eventually
):
    pid_file, grandchild_file = tmp_path / "child.json", tmp_path / "grandchild"
    child = spec("leaves_grandchild.py", grandchild_file, pid_file=pid_file)
    await start_and_kill_supervisor(pid_file, child.command, repo)
    await eventually(grandchild_file.exists)
    supervisor = await supervisors.up(child)
    pid = supervisor.status()["child"].process_pid
    await supervisor.stop()
    await eventually(lambda: not is_running(pid) and not is_running(int(grandchild_file.read_text())))
    assert not pid_file.exists()


async def test_running_child_that_must_not_be_adopted_is_ended_before_its_replacement_starts(
    supervisors, spec, repo, tmp_path, is_running
):
    pid_file = tmp_path / "child.json"
    child = spec("waits.py", pid_file=pid_file, adopt=False)
    await start_and_kill_supervisor(pid_file, child.command, repo)
    left = read_pid_file(pid_file)
    assert left is not None
    supervisor = await supervisors.up(child)
    assert supervisor.status()["child"].process_pid != left.pid
    assert not is_running(left.pid)
    names = [event.event for event in supervisors.events]
    assert names.index("child_exited") < names.index("child_started")


async def test_grandchildren_of_a_dead_child_are_killed_when_the_next_supervisor_starts(
    supervisors, spec, repo, tmp_path, is_running, eventually
):
    pid_file, grandchild_file = tmp_path / "child.json", tmp_path / "grandchild"
    command = spec("leaves_grandchild.py", grandchild_file).command
    await start_and_kill_supervisor(pid_file, command, repo)
    await eventually(grandchild_file.exists)
    left = read_pid_file(pid_file)
    assert left is not None
    os.kill(left.pid, signal.SIGKILL)
    await eventually(lambda: not is_running(left.pid))
    grandchild = int(grandchild_file.read_text())
    assert is_running(grandchild)
    await supervisors.up(spec("waits.py", pid_file=pid_file))
    assert supervisors.events_named("leftovers_killed")
    await eventually(lambda: not is_running(grandchild))


async def test_detached_child_keeps_running_until_the_next_supervisor_stops_and_reaps_it(
    supervisors, spec, tmp_path, is_running
):
    child = spec("waits.py", pid_file=tmp_path / "child.json")
    first = await supervisors.up(child)
    pid = first.status()["child"].process_pid
    await first.detach()
    assert is_running(pid)
    supervisors.made.clear()
    second = await supervisors.up(child)
    assert second.status()["child"].process_pid == pid
    await second.stop()
    assert not is_running(pid)
    assert supervisors.events_named("child_exited")[-1].fields["pid"] == pid


async def test_process_that_reuses_the_pid_in_a_pid_file_is_not_touched(
    supervisors, spec, tmp_path, is_running
):
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    started = start_time(stranger.pid)
    assert started is not None
    pid_file = tmp_path / "child.json"
    write_pid_file(pid_file, ProcessIdentity(stranger.pid, started - 5, boot_id()))
    supervisor = await supervisors.up(spec("waits.py", pid_file=pid_file))
    assert supervisor.status()["child"].process_pid != stranger.pid
    assert is_running(stranger.pid)
    assert json.loads(pid_file.read_text())["pid"] == supervisor.status()["child"].process_pid
    stranger.kill()
    await stranger.wait()


async def test_child_that_still_runs_after_a_stop_by_hand_is_stopped_by_the_next_supervisor(
    supervisors, spec, tmp_path, is_running
):
    """The first supervisor was killed in the middle of the stop."""
    child = spec("waits.py", pid_file=tmp_path / "child.json")
    first = await supervisors.up(child)
    pid = first.status()["child"].process_pid
    await first.detach()
    supervisors.made.clear()
    store = MemoryStateStore()
    record = {"open": False, "failures": 0, "opens": 0, "until": 0}
    store.save("child", {"stopped_by_hand": True, "breaker": record, "restarts": []})
    second = supervisors.make(child, store=store)
    await second.start()
    await second.wait_for("child", {State.STOPPED}, DEADLINE_S)
    assert not is_running(pid)


async def test_child_without_a_pid_file_is_found_and_adopted_and_not_started_twice(
    supervisors, spec, repo, tmp_path, is_running
):
    """`run/` was deleted, or could not be written, and the supervisor was killed."""
    pid_file = tmp_path / "run" / "child.json"
    child = spec("waits.py", pid_file=pid_file, find=find_supervised)
    await start_and_kill_supervisor(pid_file, child.command, repo)
    left = read_pid_file(pid_file)
    assert left is not None
    shutil.rmtree(tmp_path / "run")
    supervisor = await supervisors.up(child)
    assert supervisor.status()["child"].process_pid == left.pid
    assert not supervisors.events_named("child_started")
    assert read_pid_file(pid_file) == left


async def test_deleted_pid_file_of_a_running_child_is_written_again(supervisors, spec, tmp_path, eventually):
    pid_file = tmp_path / "run" / "child.json"
    supervisor = await supervisors.up(spec("waits.py", pid_file=pid_file))
    shutil.rmtree(tmp_path / "run")
    await eventually(pid_file.exists)
    found = read_pid_file(pid_file)
    assert found is not None
    assert found.pid == supervisor.status()["child"].process_pid
    await supervisor.stop()
    assert not pid_file.exists()


async def test_child_is_launched_even_if_log_and_pid_file_cannot_be_written(
    supervisors, spec, tmp_path, eventually
):
    """The folders are below a file, so that nobody can make them, root included. Later they can be made."""
    (tmp_path / "broken").write_text("")
    log, pid_file = tmp_path / "broken" / "a.log", tmp_path / "broken" / "a.json"
    supervisor = await supervisors.up(spec("waits.py", log_path=log, pid_file=pid_file))
    assert supervisors.events_named("pid_file_not_written")
    (tmp_path / "broken").unlink()
    await eventually(pid_file.exists)
    assert supervisor.status()["child"].state is State.READY
