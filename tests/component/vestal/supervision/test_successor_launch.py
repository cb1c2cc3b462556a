"""What happens while the successor of a handover is launched: a stop, a detachment, a failed launch."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import ChildSpec, HandoverPolicy, HandoverRefused, ProcessGroup, RestartPolicy, spawn
from vestal.supervision.handover import child_handovers

REPO = Path(__file__).resolve().parents[4]
# It is ready to take over at once, and does not end on SIGTERM, so that a stop takes a while.
PROGRAM = """
import os, pathlib, signal, sys, time
from vestal.supervision.handover.successor import Succession
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
pathlib.Path(sys.argv[1], f"{os.getpid()}.runs").touch()
Succession.from_environment().report_ready()
time.sleep(60)
"""


class PausedLauncher:
    """Launches the first process at once. A later launch waits for `go_on`, then raises `error` if any."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.pids: list[int] = []

    async def launch(self, spec: ChildSpec) -> ProcessGroup:
        if self.pids:
            self.begun.set()
            await self.go_on.wait()
        if self.error is not None:
            raise self.error
        launched = await spawn(spec)
        self.pids.append(launched.pid)
        return launched


@pytest.fixture
def launcher() -> PausedLauncher:
    return PausedLauncher()


@pytest.fixture
def child(launcher: PausedLauncher, tmp_path: Path) -> ChildSpec:
    return ChildSpec(
        "child",
        (sys.executable, "-c", PROGRAM, str(tmp_path)),
        env={"PYTHONPATH": str(REPO)},
        launcher=launcher,
        pid_file=tmp_path / "child.json",
        policy=RestartPolicy(stop_timeout_s=0.5, planned_stop_timeout_s=0.5),
        handover=HandoverPolicy(
            ready_timeout_s=DEADLINE_S, release_timeout_s=DEADLINE_S, linger_s=5, stop_timeout_s=0.5
        ),
    )


@pytest.mark.parametrize(("how", "why"), [("stop", "it was stopped"), ("restart", "ended meanwhile")])
async def test_child_stopped_or_restarted_while_its_successor_is_launched_is_not_handed_over(
    supervisors, child, launcher, tmp_path, eventually, how, why
):
    """The successor once took over from a process that was stopping, and had to be stopped as well."""
    supervisor = await supervisors.up(child)
    await eventually((tmp_path / f"{launcher.pids[0]}.runs").exists)
    handing = asyncio.ensure_future(supervisor.hand_over_child("child"))
    await launcher.begun.wait()
    ask = supervisor.stop_child if how == "stop" else supervisor.restart_child
    asked = asyncio.ensure_future(ask("child"))
    await asyncio.sleep(0)
    launcher.go_on.set()
    with pytest.raises(HandoverRefused, match=why):
        await handing
    await asked
    assert supervisors.events_named("handover_refused")
    if how == "stop":
        assert supervisor.status()["child"].process_pid is None
        assert list(tmp_path.glob("child*.json")) == []


async def test_stop_of_a_child_during_the_launch_of_its_successor_waits_until_both_processes_have_ended(
    supervisors, child, launcher, is_running
):
    supervisor = await supervisors.up(child)
    handing = asyncio.ensure_future(supervisor.hand_over_child("child"))
    await launcher.begun.wait()
    stopping = asyncio.ensure_future(supervisor.stop_child("child"))
    await supervisors.wait_for_event("child_stopped")
    assert not stopping.done()
    launcher.go_on.set()
    await stopping
    assert len(launcher.pids) == 2 and not any(map(is_running, launcher.pids))
    with pytest.raises(HandoverRefused):
        await handing


async def test_supervisor_detached_while_a_successor_is_launched_leaves_no_successor(
    supervisors, child, launcher, tmp_path, is_running, eventually
):
    """The launch once went on after the detachment, and left a process without a PID file."""
    supervisor = await supervisors.up(child)
    handing = asyncio.ensure_future(supervisor.hand_over_child("child"))
    await launcher.begun.wait()
    detaching = asyncio.ensure_future(supervisor.detach())
    await asyncio.sleep(0)
    launcher.go_on.set()
    await detaching
    supervisors.made.remove(supervisor)
    handing.cancel()
    await eventually(lambda: not is_running(launcher.pids[1]))
    await supervisors.up(child)  # adopts the first process, and ends it when the test is over
    assert json.loads((tmp_path / "child.json").read_text())["pid"] == launcher.pids[0]


@pytest.mark.parametrize("fault", ["launcher raises", "no pipe", "cancelled"])
async def test_successor_that_cannot_be_launched_refuses_the_handover_and_leaves_no_descriptor_open(
    supervisors, child, launcher, monkeypatch, eventually, fault
):
    """A launcher's mistake once reached the caller as it was, and left a pipe open."""
    supervisor = await supervisors.up(child)
    before = len(os.listdir("/dev/fd"))
    if fault == "no pipe":
        no_descriptor = OSError(errno.EMFILE, "Too many open files")
        monkeypatch.setattr(child_handovers.os, "pipe", Mock(side_effect=no_descriptor))
    handing = asyncio.ensure_future(supervisor.hand_over_child("child"))
    if fault == "launcher raises":
        launcher.error = RuntimeError("a mistake in the launcher")
        launcher.go_on.set()
    elif fault == "cancelled":
        await launcher.begun.wait()
        handing.cancel()
    why = {"launcher raises": "a mistake in the launcher", "no pipe": "Too many open files"}.get(fault)
    with pytest.raises(HandoverRefused if why else asyncio.CancelledError, match=why):
        await handing
    monkeypatch.undo()
    await eventually(lambda: len(os.listdir("/dev/fd")) <= before)
