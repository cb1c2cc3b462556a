"""launchd's and systemd's files: the keys that matter, and no secret in them."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from host_agent.cli import install
from host_agent.config import load
from host_agent.host import launchd, systemd


@pytest.fixture
def config(tmp_path: Path):
    return load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "v")}, tmp_path)


def test_launch_agents_keep_the_agent_alive_and_recover_each_300_s(config, tmp_path: Path):
    files = launchd.units(config.home, {"PATH": "/usr/bin"}, tmp_path)
    agent, recover = (plistlib.loads(unit.text.encode()) for unit in files)
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["RunAtLoad"] and recover["RunAtLoad"]
    assert agent["ExitTimeOut"] > config.mlx.drain_s + 4 * config.supervision.stop_s
    assert agent["ProcessType"] == "Interactive"
    assert agent["ProgramArguments"][-1] == "agent"
    assert recover["StartInterval"] == 300
    assert recover["ProgramArguments"][-2:] == ["recover", "--once"]
    assert agent["Label"] != recover["Label"]


def test_systemd_units_mean_the_same(config, tmp_path: Path):
    agent, recover, timer = systemd.units(config.home, {"A": 'b"%'}, tmp_path)
    assert "Restart=on-failure" in agent.text
    assert 'Environment="A=b\\"%%"' in agent.text
    assert "KillMode=process" in agent.text
    assert "Type=oneshot" in recover.text
    assert "OnUnitActiveSec=300" in timer.text
    assert {unit.path.suffix for unit in (agent, recover, timer)} == {".service", ".timer"}


def test_units_tell_settings_and_no_secrets(config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VESTAL_MLX_PORT", "1234")
    monkeypatch.setenv("VESTAL_TOKEN", "secret-1")
    monkeypatch.setenv("VESTAL_MLX__API_KEY", "secret-2")
    monkeypatch.setenv("VESTAL_DATABASE_URL", "secret-3")
    told = install.environment(config)
    assert told["VESTAL_MLX_PORT"] == "1234"
    assert told["VESTAL_HOME"] == str(config.home.root)
    assert "secret" not in " ".join(told.values())
