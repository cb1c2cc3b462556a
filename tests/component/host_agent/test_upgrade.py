"""A real agent replaces itself and its gateway under traffic, and refuses what cannot start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from host_agent.agent import outdated
from host_agent.agent_client import HEALTH_TIMEOUT_S
from host_agent.cli.run.progress import Progress
from host_agent.cli.run.replace_outdated import replace_outdated
from vestal.config import Config, load

pytestmark = pytest.mark.timeout(300)  # each upgrade starts several programs, one after the other

REPO = Path(__file__).resolve().parents[3]
LINES = 200  # of a stream, one each 50 ms; its last line is held back until the upgrades have ended
LONGEST_GAP_S = 10.0  # 0.9 s where nothing else runs; the tests share their cores


class Traffic:
    """Clients that ask again and again, each on a new connection."""

    def __init__(self, urls: list[str]) -> None:
        self.failures: list[str] = []
        self.longest_s = dict.fromkeys(urls, 0.0)
        self.answers = dict.fromkeys(urls, 0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for url in urls * 2]

    def _ask(self, url: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with urllib.request.urlopen(url, timeout=60) as reply:
                    reply.read()
            except OSError as error:
                self.failures.append(f"{url}: {error!r}")
            self.answers[url] += 1
            self.longest_s[url] = max(self.longest_s[url], time.monotonic() - began)
            self._stop.wait(0.02)

    def take_longest_s(self) -> float:
        """Return the longest wait for an answer since the last call."""
        longest_s = max(self.longest_s.values())
        self.longest_s = dict.fromkeys(self.longest_s, 0.0)
        return longest_s

    @contextlib.contextmanager
    def running(self) -> Iterator[Traffic]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


@pytest.fixture
def upgrade(agent) -> Callable[..., dict[str, Any]]:
    """A function that writes a request, as `vestal up` does, and returns the report of the upgrade's end."""

    def run(**environment: str) -> dict[str, Any]:
        request = {"executable": sys.executable, "environment": {**agent.env, **environment}}
        (agent.home / "run" / "upgrade.request").write_text(json.dumps(request))
        code, answer = agent.ask("/upgrade", {})
        assert (code, answer["state"]) == (202, "started")
        ended = lambda: (r := agent.ask("/upgrade")[1])["state"] in ("done", "refused") and r  # noqa: E731
        return agent.until(ended, "the upgrade ends", 100)

    return run


def test_agent_upgraded_three_times_under_traffic_refuses_no_connection_and_keeps_its_pid_and_streams(
    agent, upgrade
):
    """Earlier, a changed setting stopped everything for 29 s, with 503 and refused connections."""
    pid = agent.start("--hands-over").process.pid
    gateways, gaps_s = [agent.gateway()], []
    urls = [f"http://127.0.0.1:{agent.port}/health", f"http://127.0.0.1:{agent.mlx_port}/health"]
    held = f"http://127.0.0.1:{agent.mlx_port}/held?lines={LINES}"
    with urllib.request.urlopen(held, timeout=60) as stream, Traffic(urls).running() as traffic:
        lines = [stream.readline()]  # the first gateway has the stream
        for number in range(3):
            report = upgrade(VESTAL_MLX__MAX_RUNNING=str(number + 2))
            assert report["state"] == "done", report
            gateways.append(agent.gateway())
            if number == 0:
                row = agent.status()["services"]["mlx_server"]
                assert row["predecessors"] == gateways[:1], "it serves the stream"
                assert f"PID {gateways[0]}" in row["detail"]
            gaps_s.append(traffic.take_longest_s())
        (agent.home / "go_on").touch()
        lines += stream.read().splitlines()
    assert traffic.failures == []
    assert min(gaps_s) < LONGEST_GAP_S
    assert agent.process.poll() is None
    assert json.loads((agent.home / "run" / "agent.json").read_text())["pid"] == pid
    assert len(set(gateways)) == 4
    assert [list(map(int, line.split())) for line in lines] == [[n, gateways[0]] for n in range(LINES)]
    events = [entry["event"] for entry in agent.journal()]
    assert events.count("agent_replaced") == 3
    assert "child_killed" not in events
    left = lambda: {process.pid for process in agent.processes()} == {pid, gateways[-1]}  # noqa: E731
    agent.until(left, "the older gateways end")


def test_vestal_up_replaces_only_the_agent_if_its_settings_changed_and_nothing_when_run_again(
    agent, monkeypatch, capsys
):
    gateway = agent.start("--hands-over").gateway()
    config = _changed_config(agent, monkeypatch)
    assert outdated.parts(config) == {"agent": "its settings have changed"}
    assert outdated.parts_with_older_code(config) == []
    replace_outdated(config, Progress())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["agent", "agent"]
    assert "it is replaced, and its services go on" in lines[0]
    assert outdated.parts(config) == {}
    replace_outdated(config, Progress())
    assert capsys.readouterr().out == ""
    assert agent.gateway() == gateway
    os.kill(gateway, signal.SIGKILL)
    agent.until(lambda: agent.gateway() != gateway, "another gateway")
    assert not psutil.pid_exists(gateway), "the new program reaps the children of the last one"
    assert not (agent.home / "run" / "upgrade.request").exists()


def test_vestal_up_replaces_an_agent_that_answers_late_without_stopping_its_services(
    agent, monkeypatch, capsys
):
    """Earlier, an agent that once took 2 s to answer was stopped with all services."""
    gateway = agent.start("--hands-over").gateway()
    config = _changed_config(agent, monkeypatch)
    agent.process.send_signal(signal.SIGSTOP)
    resume = threading.Timer(HEALTH_TIMEOUT_S + 0.5, agent.process.send_signal, [signal.SIGCONT])
    resume.start()
    replace_outdated(config, Progress())
    resume.join()
    assert "it is replaced, and its services go on" in capsys.readouterr().out
    assert agent.gateway() == gateway


def test_upgrade_that_cannot_start_or_changes_nothing_leaves_agent_and_gateway_running(agent, upgrade):
    gateway = agent.start("--hands-over").gateway()
    report = upgrade()
    assert (report["state"], report["steps"]) == ("done", [])
    refused = upgrade(VESTAL_MLX__MAX_RUNNING="many")
    assert refused["state"] == "refused"
    assert refused["why"].startswith("The new agent cannot start, so the old one goes on: VESTAL_MLX__MAX")
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = upgrade(VESTAL_AGENT_PORT=str(foreign.getsockname()[1]))
    assert (taken["state"], "VESTAL_AGENT_PORT" in taken["why"]) == ("refused", True), taken
    broken = agent.home / "broken"
    broken.mkdir()
    (broken / "aiohttp.py").write_text("raise ImportError('half of the update is missing')\n")
    refused = upgrade(PYTHONPATH=f"{broken}{os.pathsep}{REPO}")
    assert (refused["state"], refused["steps"]) == ("refused", [])
    assert "half of the update is missing" in refused["why"]
    (agent.home / "stand_in.json").write_text('{"successor": "exits"}')
    refused = upgrade(VESTAL_MLX__MAX_RUNNING="3")
    assert refused["state"] == "refused"
    assert "there is no such model" in refused["why"]
    assert refused["why"].endswith("The old one goes on.")
    assert agent.gateway() == gateway
    assert agent.ask("/health")[0] == 200


def test_upgrade_whose_program_cannot_be_executed_is_refused_in_report_and_journal(agent):
    """Earlier, only the report said so. The program is deleted between its check and its execution."""
    gateway = agent.start("--hands-over").gateway()
    program = agent.home / "python"
    program.write_text(f'#!/bin/sh\nrm "$0"\nexec {sys.executable} "$@"\n')
    program.chmod(0o700)
    request = {"executable": str(program), "environment": {**agent.env, "VESTAL_MLX__MAX_RUNNING": "3"}}
    (agent.home / "run" / "upgrade.request").write_text(json.dumps(request))
    agent.ask("/upgrade", {})
    refused = lambda: [e for e in agent.journal() if e["event"] == "upgrade_refused"]  # noqa: E731
    (entry,) = agent.until(refused, "the upgrade is refused", 100)
    assert entry["cause"].startswith("The agent could not be replaced, and goes on (No such file")
    report = agent.ask("/upgrade")[1]
    assert (report["state"], report["why"]) == ("refused", entry["cause"])
    assert agent.gateway() == gateway


@pytest.mark.parametrize("obstacle", ["it does not know how", "an agent that died had its sockets"])
def test_upgrade_restarts_a_gateway_that_cannot_hand_over_its_requests(agent, upgrade, obstacle):
    gateway = agent.start(*([] if obstacle == "it does not know how" else ["--hands-over"])).gateway()
    if obstacle != "it does not know how":
        agent.kill()
        assert agent.start("--hands-over").gateway() == gateway
    report = upgrade(VESTAL_MLX__MAX_RUNNING="3")
    assert report["state"] == "done"
    assert "is restarted" in report["steps"][-1]["text"]
    assert agent.gateway() != gateway


def test_agent_that_replaces_itself_still_notices_a_killed_gateway_and_a_stop_signal(agent):
    gateway = agent.start("--hands-over").gateway()
    _begin_to_replace(agent, 1)
    os.kill(gateway, signal.SIGKILL)
    agent.until(lambda: agent.gateway() != gateway, "another gateway")
    assert not psutil.pid_exists(gateway), "the new program has reaped it"
    exited = [entry for entry in agent.journal() if entry["event"] == "child_exited"]
    assert exited[-1]["fields"]["signal"] == signal.SIGKILL
    agent.until(lambda: agent.ask("/upgrade")[1]["state"] == "done", "the upgrade ends", 100)
    _begin_to_replace(agent, 2)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(60) == 0
    assert agent.processes() == []


@pytest.mark.parametrize(
    "module", ["host_agent.cli.main agent", "host_agent.cli.main up", "mlx_server.gateway"]
)
def test_program_with_the_state_folder_of_a_newer_version_exits_with_78(agent, module):
    (agent.home / "format").write_text("2")
    command = [sys.executable, "-m", *module.split()]
    done = subprocess.run(command, env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=100)
    assert done.returncode == 78
    assert "was written by a newer Vestal (format 2; this one knows up to 1): update" in done.stderr
    assert [path.name for path in agent.home.iterdir()] == ["format"]


def _changed_config(agent, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the agent's configuration, with one setting changed since the agent's start."""
    for name, value in {**agent.env, "VESTAL_AGENT__RECOVERY_INTERVAL_S": "1234"}.items():
        if name.startswith("VESTAL_"):
            monkeypatch.setenv(name, value)
    return load()


def _begin_to_replace(agent, number: int) -> None:
    """Have the agent replace itself for the `number`-th time, and return once it lets its children go."""
    environment = agent.env | {"VESTAL_AGENT__RECOVERY_INTERVAL_S": f"99{number}"}
    request = {"executable": sys.executable, "environment": environment}
    (agent.home / "run" / "upgrade.request").write_text(json.dumps(request))
    agent.ask("/upgrade", {})
    agent.until(lambda: _count(agent.home, "agent_replacing") == number, "the agent lets go", 100)


def _count(home: Path, event: str) -> int:
    """Return how often the event is in the journal, without asking the agent."""
    with contextlib.closing(sqlite3.connect(home / "journal.db")) as database:
        return int(database.execute("SELECT count(*) FROM events WHERE event = ?", (event,)).fetchone()[0])


def test_gateway_whose_successor_would_keep_no_answers_is_restarted_and_not_handed_over(agent, upgrade):
    """Earlier, the successor deleted the answers that were handed over to it: each running one was lost."""
    gateway = agent.start("--hands-over").gateway()
    report = upgrade(VESTAL_MLX__KEEP_ANSWERS_S="0")
    assert report["state"] == "done"
    assert "it finishes its requests and is restarted" in report["steps"][-1]["text"]
    assert agent.gateway() != gateway
    report = upgrade(VESTAL_MLX__KEEP_ANSWERS_S="0", VESTAL_MLX__MAX_RUNNING="3")
    texts = [step["text"] for step in report["steps"] if step["part"] == "mlx_server"]
    assert "another is started while it serves" in texts[0], "neither of the two keeps answers"
