"""The guard as a process: it starts a dead agent again, and no agent that somebody has ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from host_agent.guard import child
from host_agent.guard.child import AgentGuard, Keeper
from tests.component.host_agent.conftest import PROGRAM, REPO, AgentUnderTest
from vestal.config import load
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify

WAITS = REPO / "tests" / "children" / "waits.py"


class GuardedAgent(AgentUnderTest):
    """An agent with a guard. The next agent is started by the guard, and adopts the fake gateway."""

    def launch(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), "--guarded"]
        return subprocess.Popen(
            command, env=self.env, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def pid_in(self, name: str) -> int:
        """Return the PID in a PID file, once it names a living process."""

        def alive() -> int:
            pid = int(json.loads((self.home / "run" / name).read_text())["pid"])
            return pid if psutil.pid_exists(pid) else 0

        return int(self.until(alive, f"{name} names a process", 30))

    def guards(self) -> list[int]:
        return [p.pid for p in self.processes() if "host_agent.guard" in p.cmdline()]


@pytest.fixture
def guarded(home: Path, free_port: Callable[[], int]):
    under_test = GuardedAgent(home, free_port(), free_port())
    yield under_test
    down = [sys.executable, "-m", "host_agent.cli.main", "down"]
    subprocess.run(down, env=under_test.env, cwd=REPO, capture_output=True, timeout=60, check=False)
    if under_test.process:
        under_test.process.communicate(timeout=10)
    for process in under_test.processes():
        process.kill()


def test_killed_agent_comes_back_by_itself_with_the_same_guard_and_gateway(guarded):
    """After `make up` without an installation, nothing watched the agent."""
    gateway, agent = guarded.start().gateway(), guarded.pid_in("agent.json")
    guard = guarded.pid_in("guard.json")
    shown = guarded.status()["services"]["agent"]
    assert shown["kept_by"] == "guard"
    assert f"its guard (PID {guard}) restarts it" in shown["detail"]
    guarded.kill()
    guarded.until(lambda: guarded.pid_in("agent.json") != agent, "another agent", 30)
    assert guarded.gateway() == gateway
    assert guarded.guards() == [guard], "it was adopted"
    assert guarded.status()["services"]["agent"]["kept_by"] == "guard"


def test_killed_guard_is_started_again_and_never_twice(guarded):
    guarded.start()
    guard = guarded.pid_in("guard.json")
    os.kill(guard, signal.SIGKILL)
    guarded.until(lambda: guarded.pid_in("guard.json") != guard, "another guard")
    assert len(guarded.guards()) == 1


def test_agent_ended_by_sigterm_stays_ended(guarded):
    """A person's `kill` is no crash."""
    guarded.start()
    guarded.pid_in("guard.json")
    guarded.process.send_signal(signal.SIGTERM)
    guarded.process.communicate(timeout=20)
    assert guarded.processes() == []
    time.sleep(0.5)
    assert guarded.processes() == []


def test_down_leaves_neither_agent_nor_guard_also_where_the_agent_was_just_killed(guarded):
    guarded.start()
    guarded.pid_in("guard.json")
    guarded.kill()
    down = [sys.executable, "-m", "host_agent.cli.main", "down"]
    done = subprocess.run(
        down, env=guarded.env, cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert guarded.processes() == []
    time.sleep(1.0)
    assert guarded.processes() == []


def test_second_guard_ends_at_once(guarded):
    guarded.start()
    guard = guarded.pid_in("guard.json")
    run = str(guarded.home / "run")
    second = [sys.executable, "-m", "host_agent.guard", run, str(guarded.port)]
    done = subprocess.run(
        second, env=guarded.env, cwd=REPO, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0
    assert "another guard watches" in done.stdout
    assert guarded.guards() == [guard]


def test_agent_started_by_hand_has_no_guard_and_says_so(agent):
    shown = agent.start().status()["services"]["agent"]
    assert (shown["kept_by"], not (agent.home / "run" / "guard.json").exists()) == ("nobody", True)
    assert "nothing restarts it" in shown["detail"]


def test_agent_of_a_service_manager_names_it_and_ends_the_guard_of_an_earlier_agent(home: Path):
    """Two who start the agent would start two."""
    config = load({"VESTAL_HOME": str(home)})
    config.home.prepare()
    with subprocess.Popen([sys.executable, str(WAITS)]) as leftover:
        identity = identify(leftover.pid)
        assert identity
        write_pid_file(child.pid_file(config.home), identity)
        guard = AgentGuard(config, Keeper.SERVICE_MANAGER, "systemd", on_event=lambda event: None)
        asyncio.run(guard.start())
        leftover.wait(10)
    assert guard.describe() == "systemd restarts it when it fails"
