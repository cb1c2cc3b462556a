"""Launchers, listeners and watchers: what others plug in, and what the kernel tells."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

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
from vestal.supervision.processes.exit_watch import _polled, ended

ECHO = "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(9)); s.recv(9)"


class SocketLauncher:
    """As the gateway makes its engine: one end of a socket pair each; either sees the other's end."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    async def launch(self, spec: ChildSpec) -> ProcessGroup:
        ours, theirs = socket.socketpair()
        self.ends.append(ours)
        with theirs:
            command = (*spec.command, str(theirs.fileno()))
            return await spawn(replace(spec, command=command), pass_fds=(theirs.fileno(),))


async def test_launcher_of_ones_own_passes_a_socket_to_each_new_process(house):
    launcher = SocketLauncher()
    supervisor = await house.up(ChildSpec("child", (sys.executable, "-c", ECHO), launcher=launcher))
    loop = asyncio.get_running_loop()
    for end in launcher.ends:
        end.setblocking(False)
        await loop.sock_sendall(end, b"hello")
        assert await loop.sock_recv(end, 9) == b"hello"
        end.close()  # the child sees it, and ends
    await house.until("child_exited")
    await house.until("child_restarting")
    await supervisor.stop()
    for end in launcher.ends:
        end.close()


async def test_launcher_that_never_comes_to_an_end_is_a_failed_start(house, spec):
    class Hangs:
        async def launch(self, spec: ChildSpec) -> ProcessGroup:
            await asyncio.Event().wait()
            raise AssertionError

    policy = {"start_timeout_s": 0.05, "breaker": BreakerPolicy(failures=1)}
    supervisor = house.supervisor(spec("waits.py", launcher=Hangs(), policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, 5)
    assert "launcher" in status.detail


async def test_machine_without_room_has_no_process_made_until_there_is(house, spec):
    room = False

    async def before_launch() -> None:
        if not room:
            raise LaunchError("no memory is free")

    policy = {"breaker": BreakerPolicy(failures=2, open_s=0.2)}
    supervisor = house.supervisor(spec("waits.py", before_launch=before_launch, policy=policy))
    await supervisor.start()
    status = await supervisor.wait_for("child", {State.OPEN}, 5)
    assert (status.detail, status.process_pid) == ("no memory is free", None)
    assert not house.told("child_started")
    room = True
    await supervisor.wait_for("child", {State.READY}, 5)
    assert house.told("breaker_closed")


async def test_listener_that_raises_keeps_nobody_from_being_restarted(spec):
    def listener(event: Event) -> None:
        raise RuntimeError("the journal's disk is full")

    supervisor = Supervisor([spec("waits.py")], on_event=listener)
    await supervisor.start()
    pid = (await supervisor.wait_for("child", {State.READY}, 5)).process_pid
    os.kill(pid or 0, signal.SIGKILL)
    await supervisor.wait_for("child", {State.STARTING}, 5)
    await supervisor.wait_for("child", {State.READY}, 5)
    await supervisor.stop()


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_many_restarts_leave_no_open_file_behind(house, spec, tmp_path: Path):
    policy = {"intensity": Intensity(100, 300)}
    log, pid_file = tmp_path / "a.log", tmp_path / "a.json"
    supervisor = await house.up(spec("waits.py", policy=policy, log_path=log, pid_file=pid_file))
    before = open_files()
    for n in range(10):
        os.kill(supervisor.status()["child"].process_pid or 0, signal.SIGKILL)
        await house.until("child_ready", n + 2)
    assert open_files() <= before
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.log"]


async def test_output_of_every_run_is_appended_to_the_log(house, spec, tmp_path: Path):
    log = tmp_path / "logs" / "a.log"
    policy = {"intensity": Intensity(1, 300), "breaker": BreakerPolicy(open_s=60)}
    supervisor = house.supervisor(spec("exits.py", 1, "on stderr", log_path=log, policy=policy))
    await supervisor.start()
    await supervisor.wait_for("child", {State.OPEN}, 5)
    assert log.read_text().splitlines() == ["starting", "on stderr"] * 2
    assert log.stat().st_mode & 0o077 == 0


async def test_end_of_a_process_is_seen_by_every_watcher_there_is(eventually):
    for watch in (ended, _polled):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        watching = asyncio.create_task(watch(process.pid))
        await asyncio.sleep(0)
        assert not watching.done()
        process.kill()
        async with asyncio.timeout(5):
            await watching
        await process.wait()
        async with asyncio.timeout(5):
            await watch(process.pid)  # gone already
