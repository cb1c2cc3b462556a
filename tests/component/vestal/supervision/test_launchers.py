"""Launchers and event receivers of the caller, and the process handling beneath them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    BreakerPolicy,
    ChildSpec,
    Event,
    Intensity,
    LaunchError,
    ProcessGroup,
    State,
    Supervisor,
    spawn,
)
from vestal.supervision.processes.exit_watch import _poll_for_exit, wait_for_exit

ECHO = "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(9)); s.recv(9)"


class SocketLauncher:
    """Gives each process one end of a socket pair, as the gateway does with its engine."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    async def launch(self, spec: ChildSpec) -> ProcessGroup:
        ours, theirs = socket.socketpair()
        self.ends.append(ours)
        with theirs:
            command = (*spec.command, str(theirs.fileno()))
            return await spawn(replace(spec, command=command), pass_fds=(theirs.fileno(),))


async def test_custom_launcher_passes_a_socket_to_each_new_process(supervisors):
    launcher = SocketLauncher()
    supervisor = await supervisors.up(ChildSpec("child", (sys.executable, "-c", ECHO), launcher=launcher))
    loop = asyncio.get_running_loop()
    for end in launcher.ends:
        end.setblocking(False)
        await loop.sock_sendall(end, b"hello")
        assert await loop.sock_recv(end, 9) == b"hello"
        end.close()  # the child notices, and exits
    await supervisors.wait_for_event("child_exited")
    await supervisors.wait_for_event("child_restarting")
    await supervisor.stop()
    for end in launcher.ends:
        end.close()


async def test_launcher_that_never_returns_counts_as_a_failed_start(supervisors, spec):
    class HangingLauncher:
        async def launch(self, spec: ChildSpec) -> ProcessGroup:
            await asyncio.Event().wait()
            raise AssertionError

    policy = {"start_timeout_s": 0.05, "breaker": BreakerPolicy(failures=1)}
    supervisor = supervisors.make(spec("waits.py", launcher=HangingLauncher(), policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, DEADLINE_S)
    assert "launcher" in status.detail


async def test_before_launch_hook_that_raises_prevents_the_launch_until_it_succeeds(supervisors, spec):
    has_memory = False

    async def before_launch() -> None:
        if not has_memory:
            raise LaunchError("no memory is free")

    policy = {"breaker": BreakerPolicy(failures=2, open_s=0.2)}
    supervisor = supervisors.make(spec("waits.py", before_launch=before_launch, policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, DEADLINE_S)
    assert (status.detail, status.process_pid) == ("no memory is free", None)
    assert not supervisors.events_named("child_started")
    has_memory = True
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    assert supervisors.events_named("breaker_closed")


async def test_event_receiver_that_raises_does_not_prevent_a_restart(spec):
    def on_event(event: Event) -> None:
        raise RuntimeError("the journal's disk is full")

    supervisor = Supervisor([spec("waits.py")], on_event=on_event)
    await supervisor.start()
    pid = (await supervisor.wait_for("child", {State.READY}, DEADLINE_S)).process_pid
    os.kill(pid or 0, signal.SIGKILL)
    await supervisor.wait_for("child", {State.STARTING}, DEADLINE_S)
    await supervisor.wait_for("child", {State.READY}, DEADLINE_S)
    await supervisor.stop()


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_ten_restarts_of_a_child_leave_no_open_file_behind(supervisors, spec, tmp_path: Path):
    policy = {"intensity": Intensity(100, 300)}
    log, pid_file = tmp_path / "a.log", tmp_path / "a.json"
    supervisor = await supervisors.up(spec("waits.py", policy=policy, log_path=log, pid_file=pid_file))
    before = open_files()
    for n in range(10):
        os.kill(supervisor.status()["child"].process_pid or 0, signal.SIGKILL)
        await supervisors.wait_for_event("child_ready", n + 2)
    assert open_files() <= before
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.log"]


async def test_output_of_every_started_process_is_appended_to_the_childs_log(
    supervisors, spec, tmp_path: Path
):
    log = tmp_path / "logs" / "a.log"
    policy = {"intensity": Intensity(1, 300), "breaker": BreakerPolicy(open_s=60)}
    supervisor = supervisors.make(spec("exits.py", 1, "on stderr", log_path=log, policy=policy))
    await supervisor.start()
    await supervisor.wait_for("child", {State.OPEN}, DEADLINE_S)
    assert log.read_text().splitlines() == ["starting", "on stderr"] * 2
    assert log.stat().st_mode & 0o077 == 0


async def test_exit_of_a_process_is_noticed_by_kernel_event_and_by_polling():
    for watch in (wait_for_exit, _poll_for_exit):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        watching = asyncio.create_task(watch(process.pid))
        await asyncio.sleep(0)
        assert not watching.done()
        process.kill()
        async with asyncio.timeout(DEADLINE_S):
            await watching
        await process.wait()
        async with asyncio.timeout(DEADLINE_S):
            await watch(process.pid)  # it has ended already


async def test_child_of_a_supervisor_whose_working_folder_was_deleted_has_an_existing_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Earlier, no service could be restarted after the checkout was deleted in which `vestal up` had run."""
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    (tmp_path / "checkout").rmdir()
    child = await spawn(ChildSpec("x", (sys.executable, "-c", "import os; os.getcwd()")))
    assert (await child.wait()).code == 0
