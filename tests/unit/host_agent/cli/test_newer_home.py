"""Commands in a state folder that a newer Vestal has written: only `down` runs, and deletes nothing there."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from host_agent.cli.run import down
from host_agent.services.orchestrator import mode
from tests.services.in_process import vestal
from vestal.config import defaults_at_home


@pytest.mark.parametrize("command", ["incidents", "logs", "doctor", "token", "up"])
def test_command_in_the_home_of_a_newer_vestal_exits_with_78(home: Path, command: str):
    """`incidents` and `logs` once went on with the defaults."""
    (home / "format").write_text("99\n")
    done = vestal((command,), {"HOME": str(home), "VESTAL_HOME": str(home)})
    assert done.returncode == 78
    assert "was written by a newer Vestal" in done.stderr and "defaults" not in done.stderr
    assert [path.name for path in home.iterdir()] == ["format"]


@pytest.mark.parametrize(("number", "are_kept"), [("1", False), ("99", True)])
def test_down_deletes_files_except_in_the_home_of_a_newer_vestal(
    home: Path, monkeypatch: pytest.MonkeyPatch, number: str, are_kept: bool
):
    config = defaults_at_home({"HOME": str(home), "VESTAL_HOME": str(home)}, home)
    config.home.prepare()
    config.home.format_file.write_text(number)
    mode.remember_containers(config)
    (config.home.run / "agent.json").write_text("{}")
    monkeypatch.setattr(down, "_stop_installed_jobs", lambda config: "")
    monkeypatch.setattr(down, "stop_agent", lambda config: "")
    monkeypatch.setattr(down, "_stop_leftover_processes", lambda config: [])
    monkeypatch.setattr(down.Compose, "command", lambda *arguments: ["true"])
    assert down.run(argparse.Namespace(), config) == 0
    assert mode.has_containers(config) is are_kept
    assert (config.home.run / "agent.json").exists() is are_kept
