"""What keeps a running agent from its work: a hang, a lost token, settings that have changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from host_agent.agent import running_settings
from host_agent.cli.run import background_agent
from host_agent.errors import AgentUnreachable
from vestal.config import Config, load

REPO = Path(__file__).resolve().parents[3]


def _config(agent, **more: str) -> Config:
    return load(env={k: v for k, v in agent.env.items() if k.startswith("VESTAL_")} | more, cwd=agent.home)


def _vestal(agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
    return subprocess.run(command, env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=60)


def test_agent_that_hangs_is_replaced_and_what_it_looked_after_adopted(agent, monkeypatch):
    """The 300 s backstop is all there is above the agent: a hung one must not hold its place for ever."""
    gateway = agent.start().gateway()
    hung = agent.process.pid
    for name, value in agent.env.items():
        if name.startswith("VESTAL_"):
            monkeypatch.setenv(name, value)
    os.kill(hung, signal.SIGSTOP)
    assert background_agent.ensure_running(_config(agent), hung_after_s=1.0) is True
    agent.process.wait(10)
    assert agent.process.returncode == -signal.SIGKILL
    assert psutil.pid_exists(gateway)
    assert agent.gateway() == gateway


def test_agent_on_another_port_than_configured_is_not_taken_for_hung(agent, free_port):
    agent.start()
    config = _config(agent, VESTAL_AGENT_PORT=str(free_port()))
    with pytest.raises(AgentUnreachable, match=f"listens on port {agent.port}"):
        background_agent.ensure_running(config, hung_after_s=0.2)
    assert agent.process.poll() is None


def test_token_removed_or_changed_while_the_agent_runs_is_put_back(agent):
    token = agent.home / "token"
    right = token.read_text() if token.exists() else ""
    agent.start()
    right = token.read_text()
    for spoil in (token.unlink, lambda: token.write_text("another")):
        spoil()
        agent.until(lambda: token.exists() and token.read_text() == right, "it is put back")
        assert token.stat().st_mode & 0o777 == 0o600
    assert any(entry["event"] == "token_restored" for entry in agent.journal())


def test_mistake_in_the_settings_does_not_keep_the_stack_running(agent):
    agent.start()
    (agent.home / "vestal.yaml").write_text("mlx: {keep_alive: soon}\n")
    down = _vestal(agent, "down")
    assert down.returncode == 0, down.stderr
    assert "keep_alive" in down.stderr
    assert agent.processes() == []


def test_settings_are_the_same_until_one_changes(agent):
    same, other = _config(agent), _config(agent, VESTAL_MLX__MAX_RUNNING="4")
    assert running_settings.of(same) == running_settings.of(_config(agent))
    assert running_settings.of(same) != running_settings.of(other)
    agent.start()
    assert running_settings.read(same.home) == running_settings.of(same)
