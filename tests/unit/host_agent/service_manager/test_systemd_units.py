"""The user units that `vestal install` writes on Linux, checked by systemd-analyze if that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from host_agent.service_manager.jobs import ALL_JOBS, KEPT_ALIVE, JobSettings
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit_files import UnitFile
from vestal.config import load
from vestal.platform.commands import Commands
from vestal.web import descriptors

AWKWARD = 'b" %h $HOME \\ é\n2'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "systemd" / "user"


@pytest.fixture
def manager(tmp_path: Path, folder: Path) -> Systemd:
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "100% v")}, tmp_path)
    return Systemd(config.home, Commands(), folder)


@pytest.fixture
def units(manager: Systemd, tmp_path: Path) -> list[UnitFile]:
    checkout = tmp_path / "50% checkout"
    checkout.mkdir()
    return manager.render(
        ALL_JOBS, JobSettings({"PATH": "/usr/bin", "A": AWKWARD}, checkout, sys.executable, 120, 300)
    )


def text(units: list[UnitFile], ending: str) -> str:
    (found,) = [unit.text for unit in units if unit.path.name.endswith(ending)]
    return found


def write(units: list[UnitFile]) -> None:
    for unit in units:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        unit.path.write_text(unit.text)


def test_systemd_units_have_the_same_restart_rules_as_the_launchd_agents(units):
    for name in KEPT_ALIVE:
        kept = text(units, f"-{name}.service")
        assert "\nRestart=on-failure\n" in kept
        assert "\nTimeoutStopSec=120\n" in kept
        assert "\nUMask=0077\n" in kept
        assert f"\nLimitNOFILE={descriptors.WANTED}:65536\n" in kept
        assert "\nWantedBy=default.target\n" in kept
    assert "\nKillMode=process\n" in text(units, "-agent.service"), "its children outlive a killed agent"
    assert "\nType=oneshot\n" in text(units, "-recover.service")
    timer = text(units, "-recover.timer")
    assert "\nOnUnitActiveSec=300\n" in timer and "\nOnBootSec=" in timer
    (service,) = [unit.path.name for unit in units if unit.path.name.endswith("-recover.service")]
    assert f"\nUnit={service}\n" in timer


def test_systemd_unit_values_with_specifiers_and_quotes_are_quoted(units, tmp_path: Path):
    agent = text(units, "-agent.service")
    assert r'Environment="A=b\" %%h $HOME \\ é\n2"' in agent, "only ExecStart knows $"
    assert f"WorkingDirectory={tmp_path}/50%% checkout" in agent
    assert not re.search(r"^[^#\n]*@", agent, re.MULTILINE)


def test_python_and_checkout_of_an_installed_job_are_read_back_from_its_systemd_unit(
    manager, units, tmp_path: Path
):
    write(units)
    assert manager.installed_program("agent").python == Path(sys.executable)
    assert manager.installed_program("recover").checkout == tmp_path / "50% checkout"


def test_reading_the_program_of_a_systemd_unit_without_exec_start_raises_value_error(manager, units):
    write(units)
    manager.paths("agent")[0].write_text("[Unit]\n")
    with pytest.raises(ValueError, match="no ExecStart"):
        manager.installed_program("agent")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_rendered_systemd_units_pass_systemd_analyze_verify(units, folder: Path, tmp_path: Path):
    write(units)
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *(str(unit.path) for unit in units)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(run), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if str(folder) in line or "vestal" in line]
    assert not ours


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_analyze_verify_reports_a_missing_program(units, tmp_path: Path):
    """Show that the check with systemd-analyze can fail."""
    write(units)
    (agent,) = [unit for unit in units if unit.path.name.endswith("-agent.service")]
    agent.path.write_text(agent.text.replace(sys.executable, "/nowhere/python"))
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(agent.path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(run), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert "/nowhere/python" in done.stderr
