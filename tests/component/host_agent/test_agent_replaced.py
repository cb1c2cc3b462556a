"""A running agent that hangs, whose token is lost, or whose settings have changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from host_agent.agent import outdated, running_settings
from host_agent.cli.run import background_agent
from host_agent.cli.run.background_agent import AgentStart
from host_agent.cli.run.progress import Progress
from host_agent.cli.run.replace_outdated import replace_outdated
from host_agent.errors import AgentUnreachable
from tests.component.host_agent.conftest import suspend
from vestal.config import Config, load

pytestmark = pytest.mark.timeout(300)  # commands and agents start one after the other

REPO = Path(__file__).resolve().parents[3]


def _config(agent, **more: str) -> Config:
    return load(env={k: v for k, v in agent.env.items() if k.startswith("VESTAL_")} | more, cwd=agent.home)


def _vestal(agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
    return subprocess.run(command, env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=100)


def test_hung_agent_is_replaced_and_its_gateway_adopted(agent, monkeypatch, capsys):
    """Only the recovery pass every 300 s supervises the agent, so the pass must replace a hung agent."""
    gateway = agent.start().gateway()
    for name, value in agent.env.items():
        if name.startswith("VESTAL_"):
            monkeypatch.setenv(name, value)
    os.kill(agent.process.pid, signal.SIGUSR1)
    done = background_agent.ensure_running(_config(agent), hung_after_s=1.0)
    assert done is AgentStart.REPLACED
    agent.process.wait(60)
    assert agent.process.returncode == -signal.SIGKILL
    assert "it does not work" in capsys.readouterr().err
    assert psutil.pid_exists(gateway)
    assert agent.gateway() == gateway


def test_status_and_doctor_report_an_agent_suspended_by_sigstop_and_the_recover_command_resumes_it(agent):
    """Earlier, `status`, the doctor and `vestal up` all said that no agent ran."""
    gateway = agent.start().gateway()
    pid = agent.process.pid
    suspend(pid)
    stopped = f"The agent (PID {pid}) is stopped (SIGSTOP)"
    commands = ["status"], ["status", "--json"], ["doctor"], ["recover", "--dry-run"]
    with ThreadPoolExecutor() as pool:  # each waits some seconds for the agent's answer
        status, as_json, doctor, planned = pool.map(lambda command: _vestal(agent, *command), commands)
    assert status.returncode == 2
    assert status.stdout.startswith(f"Down: {stopped}")
    assert f"kill -CONT {pid}" in status.stdout
    shown = json.loads(as_json.stdout)
    assert (shown["agent"], shown["healthy"]) == ("suspended", False)
    assert stopped in doctor.stdout
    assert planned.returncode == 1
    assert stopped in planned.stdout
    assert "would continue it" in planned.stdout
    recover = _vestal(agent, "recover", "--once")
    assert "agent: it was stopped (SIGSTOP), and goes on now" in recover.stdout
    assert recover.returncode == 0, recover.stdout + recover.stderr
    assert agent.process.poll() is None
    assert agent.gateway() == gateway


def test_down_command_gracefully_stops_an_agent_suspended_by_sigstop(agent):
    agent.start()
    suspend(agent.process.pid)
    down = _vestal(agent, "down")
    assert down.returncode == 0, down.stderr
    assert "SIGSTOP had stopped it" in down.stdout
    assert agent.process.wait(60) == 0
    assert agent.processes() == []


def test_agent_on_another_port_than_configured_is_not_killed_as_hung(agent, free_port):
    agent.start()
    config = _config(agent, VESTAL_AGENT_PORT=str(free_port()))
    with pytest.raises(AgentUnreachable, match=f"listens on port {agent.port}"):
        background_agent.ensure_running(config, hung_after_s=0.2)
    assert agent.process.poll() is None


def test_token_deleted_or_changed_while_the_agent_runs_is_restored(agent):
    token = agent.home / "token"
    agent.start()
    right = token.read_text()
    for spoil in (token.unlink, lambda: token.write_text("another")):
        spoil()
        agent.until(lambda: token.exists() and token.read_text() == right, "it is restored")
        assert token.stat().st_mode & 0o777 == 0o600
    assert any(entry["event"] == "token_restored" for entry in agent.journal())


def test_down_command_reports_an_invalid_setting_and_still_stops_the_agent_and_its_services(agent):
    agent.start()
    (agent.home / "vestal.yaml").write_text("mlx: {keep_alive: soon}\n")
    down = _vestal(agent, "down")
    assert down.returncode == 0, down.stderr
    assert "keep_alive" in down.stderr
    assert agent.processes() == []


def test_running_settings_fingerprint_changes_only_if_a_setting_has_changed(agent):
    same, other = _config(agent), _config(agent, VESTAL_MLX__MAX_RUNNING="4")
    assert running_settings.of(same) == running_settings.of(_config(agent))
    assert running_settings.of(same) != running_settings.of(other)
    agent.start()
    assert running_settings.read(same.home) == running_settings.of(same)


def test_agent_whose_vestal_home_was_moved_counts_as_outdated_and_is_stopped(agent, tmp_path, capsys):
    """Earlier, `vestal up` reported it as running, while it wrote to the old place, which it made again."""
    agent.start()
    moved = tmp_path / "moved"
    agent.home.rename(moved)
    config = _config(agent, VESTAL_HOME=str(moved))
    assert outdated.parts(config) == dict.fromkeys(["agent", "mlx_server"], outdated.MOVED)
    replace_outdated(config, Progress())
    assert outdated.MOVED in capsys.readouterr().out
    assert agent.process.wait(60) == 0
    assert outdated.parts(config) == {}


def test_agent_that_is_started_on_the_port_of_another_homes_agent_does_not_count_as_started(
    agent, tmp_path, monkeypatch
):
    """Earlier, any agent that answered there counted, and `vestal up` ended with "The token is wrong"."""
    agent.start()
    for name, value in {**agent.env, "VESTAL_HOME": str(tmp_path)}.items():
        if name.startswith("VESTAL_"):
            monkeypatch.setenv(name, value)
    with pytest.raises(AgentUnreachable, match=f"The agent did not start: .*port {agent.port} is held by"):
        background_agent.ensure_running(load())


def test_up_on_the_port_of_another_homes_agent_names_that_agent_and_starts_nothing(agent, tmp_path):
    agent.start()
    agent.env |= {"VESTAL_HOME": str(tmp_path)}
    done = _vestal(agent, "up")
    assert done.returncode == 75
    assert f"Port {agent.port} is held by" in done.stderr
