"""The watchdog as a process: it restarts a dead agent, but not one that somebody has stopped."""

from __future__ import annotations

import asyncio
import contextlib
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

from host_agent.watchdog import child
from host_agent.watchdog.__main__ import Watchdog
from host_agent.watchdog.child import AgentRestarter, AgentWatchdog
from host_agent.watchdog.restart_plan import RestartPlan
from tests.component.host_agent.conftest import PROGRAM, REPO, WITHIN_S, AgentUnderTest
from vestal.config import load
from vestal.supervision import Backoff, Intensity, write_pid_file
from vestal.supervision.processes.identity import identify

WAITS = REPO / "tests" / "children" / "waits.py"
NOTICED_WITHIN_S = 45.0  # less than the interval at which a watchdog asks its agent
pytestmark = pytest.mark.timeout(300)  # agents, watchdogs and commands start one after the other


class WatchedAgent(AgentUnderTest):
    """An agent with a watchdog. The next agent is started by the watchdog, and adopts the fake gateway."""

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), "--with-watchdog", *arguments]
        return subprocess.Popen(
            command, env=self.env, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def pid_in(self, name: str) -> int:
        """Return the PID in a PID file, once it names a living process."""

        def alive() -> int:
            pid = int(json.loads((self.home / "run" / name).read_text())["pid"])
            return pid if psutil.pid_exists(pid) else 0

        return int(self.until(alive, f"{name} names a process", NOTICED_WITHIN_S))

    def watchdogs(self) -> list[int]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # such as `vestal recover`, which has just ended
                if "host_agent.watchdog" in process.cmdline():
                    found.append(process.pid)
        return found


@pytest.fixture
def watched(home: Path, free_port: Callable[[], int]):
    under_test = WatchedAgent(home, free_port(), free_port())
    yield under_test
    down = [sys.executable, "-m", "host_agent.cli.main", "down"]
    subprocess.run(down, env=under_test.env, cwd=REPO, capture_output=True, timeout=100, check=False)
    under_test.end_all()


def test_killed_agent_is_restarted_by_its_watchdog_and_adopts_its_gateway(watched):
    """Earlier, after `make up` without `vestal install`, nothing restarted a dead agent."""
    gateway, agent = watched.start().gateway(), watched.pid_in("agent.json")
    watchdog = watched.pid_in("watchdog.json")
    shown = watched.status()["services"]["agent"]
    assert shown["kept_by"] == "watchdog"
    assert f"its watchdog (PID {watchdog}) restarts it" in shown["detail"]
    watched.kill()
    watched.until(lambda: watched.pid_in("agent.json") != agent, "another agent", NOTICED_WITHIN_S)
    assert watched.gateway() == gateway
    assert watched.watchdogs() == [watchdog], "it was adopted"
    assert watched.status()["services"]["agent"]["kept_by"] == "watchdog"


def test_killed_watchdog_is_started_again_exactly_once(watched):
    watched.start()
    watchdog = watched.pid_in("watchdog.json")
    os.kill(watchdog, signal.SIGKILL)
    watched.until(lambda: watched.pid_in("watchdog.json") != watchdog, "another watchdog")
    assert len(watched.watchdogs()) == 1


async def test_watchdog_ended_by_sigterm_while_its_agent_lives_is_started_again(home: Path):
    """It ends with exit code 0, which once counted as its wish to stay stopped."""
    config = load({"VESTAL_HOME": str(home)})
    config.home.prepare()
    this_process = identify(os.getpid())
    assert this_process
    write_pid_file(config.home.run / "agent.json", this_process)  # else it starts a real agent
    watchdog = AgentWatchdog(config, AgentRestarter.WATCHDOG, "systemd", on_event=lambda event: None)
    await watchdog.start()
    first = watchdog.pid
    async with asyncio.timeout(WITHIN_S):
        while not (home / "run" / "watchdog.sock").exists():  # noqa: ASYNC110 - it handles SIGTERM now
            await asyncio.sleep(0.02)
        assert await child.stop_leftover(config.home)
        while watchdog.pid in (None, first):  # noqa: ASYNC110 - a process starts
            await asyncio.sleep(0.02)
    await watchdog.stop()
    assert child.running(config.home) is None


def test_agent_ended_by_sigterm_is_not_restarted_by_its_watchdog(watched):
    """A person's `kill` is not a crash."""
    watched.start()
    watched.pid_in("watchdog.json")
    watched.process.send_signal(signal.SIGTERM)
    watched.process.communicate(timeout=60)
    assert watched.processes() == []
    time.sleep(0.5)
    assert watched.processes() == []


def test_down_command_after_the_agent_was_killed_leaves_neither_agent_nor_watchdog_running(watched):
    watched.start()
    watched.pid_in("watchdog.json")
    watched.kill()
    down = [sys.executable, "-m", "host_agent.cli.main", "down"]
    done = subprocess.run(
        down, env=watched.env, cwd=REPO, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert watched.processes() == []
    time.sleep(1.0)
    assert watched.processes() == []


def test_second_watchdog_for_the_same_agent_ends_at_once(watched):
    watched.start()
    watchdog = watched.pid_in("watchdog.json")
    locked = (watched.home / "run" / "watchdog.sock").exists  # the watchdog makes it once it has its lock
    watched.until(locked, "the first watchdog has its lock")
    run = str(watched.home / "run")
    second = [sys.executable, "-m", "host_agent.watchdog", run, str(watched.port)]
    done = subprocess.run(
        second, env=watched.env, cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "another watchdog watches" in done.stdout
    assert watched.watchdogs() == [watchdog]


async def test_watchdog_whose_command_cannot_be_started_tries_again_until_it_can(
    home: Path, capsys: pytest.CaptureFixture[str]
):
    """It once ended with the OSError, so that nobody started the dead agent any more."""
    command = home / "python"
    quick = RestartPlan(Backoff(0.05, 0.05), Intensity(max_restarts=1000))
    watching = asyncio.create_task(Watchdog(home / "run", 1, (str(command),), quick).watch())
    printed = ""
    async with asyncio.timeout(WITHIN_S):
        while printed.count("could not be started") < 2 and not watching.done():
            await asyncio.sleep(0.01)
            printed += capsys.readouterr().out
        (home / "python.new").write_text("#!/bin/sh\nrm $0\n")
        (home / "python.new").chmod(0o700)
        (home / "python.new").rename(command)  # as an upgrade of Python does
        while "ended with exit code 0" not in printed and not watching.done():
            await asyncio.sleep(0.01)
            printed += capsys.readouterr().out
    assert not watching.done()
    watching.cancel()
    await asyncio.wait({watching})


def test_agent_started_by_hand_has_no_watchdog_and_reports_that(agent):
    shown = agent.start().status()["services"]["agent"]
    assert (shown["kept_by"], not (agent.home / "run" / "watchdog.json").exists()) == ("nobody", True)
    assert "nothing restarts it" in shown["detail"]


def test_agent_run_by_systemd_reports_that_systemd_restarts_it_and_ends_a_leftover_watchdog(home: Path):
    """A watchdog beside a service manager would start a second agent."""
    config = load({"VESTAL_HOME": str(home)})
    config.home.prepare()
    with subprocess.Popen([sys.executable, str(WAITS)]) as leftover:
        identity = identify(leftover.pid)
        assert identity
        write_pid_file(child.pid_file(config.home), identity)
        watchdog = AgentWatchdog(
            config, AgentRestarter.SERVICE_MANAGER, "systemd", on_event=lambda event: None
        )
        asyncio.run(watchdog.start())
        leftover.wait(60)
    assert watchdog.describe() == "systemd restarts it when it fails"


async def test_watchdog_asks_its_agent_at_the_port_that_the_agent_has_now(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Earlier, a watchdog that the next agent adopted asked at the first agent's port for ever, and ran a
    recovery pass each minute.
    """
    monkeypatch.setattr("host_agent.watchdog.__main__.ASK_EACH_S", 0.02)
    questions = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal questions
        questions += 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    (home / "run").mkdir()
    (home / "run" / "agent.settings").write_text(json.dumps({"port": server.sockets[0].getsockname()[1]}))
    agent = identify(os.getpid())
    assert agent
    write_pid_file(home / "run" / "agent.json", agent)
    recover = (sys.executable, "-c", f"open({str(home / 'recovered')!r}, 'w')")
    watching = asyncio.create_task(Watchdog(home / "run", 1, recover).watch())
    async with asyncio.timeout(WITHIN_S):
        while questions < 3 and not (home / "recovered").exists():  # noqa: ASYNC110 - a counter is read
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait({watching})
    server.close()
    assert not (home / "recovered").exists()
