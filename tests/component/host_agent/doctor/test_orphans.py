"""Processes that nobody supervises: orphans, zombies and runners of Ollama, all real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from host_agent.agent import single_instance
from host_agent.doctor import runner
from host_agent.doctor.evidence import process_table
from host_agent.doctor.services import orphans
from tests.component.host_agent.doctor.conftest import CHILDREN, faults, until
from vestal.config import Config
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify

Run = Callable[..., subprocess.Popen[bytes]]
# Has the command line of a gateway, and waits. Touches the file of its first argument once it runs.
AS_GATEWAY = [sys.executable, str(CHILDREN / "waits.py"), "{touched}", "-m", "mlx_server.gateway"]
# Starts another process and exits at once, as an agent that is killed.
ABANDONS = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True)"


@pytest.fixture
def abandoned(configure: Callable[..., Config], run: Run, tmp_path: Path):
    """The PID of a process that looks like a gateway of this home and whose parent has exited."""
    home = configure().home
    home.prepare()
    touched = tmp_path / "touched"
    command = [part.format(touched=touched) for part in AS_GATEWAY]
    parent = run(
        *(sys.executable, "-c", ABANDONS, *command),
        env={**os.environ, "VESTAL_HOME": str(home.root)},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.wait()
    until(touched.exists, "it runs")
    yield pid
    psutil.Process(pid).kill()


def record(home, pid: int, name: str = "mlx_server") -> None:
    """Write a PID file as the agent's supervisor does."""
    identity = identify(pid)
    assert identity
    write_pid_file(home.run / f"{name}.json", identity)


def test_doctor_reports_the_gateway_of_a_killed_agent_as_an_orphan(configure, abandoned: int):
    config = configure()
    record(config.home, abandoned)
    (found,) = faults(orphans.diagnose(config))
    assert f"mlx_server.gateway (PID {abandoned}) runs without the parent" in found.sentence
    assert f"kill {abandoned}" in found.remedy


def test_doctor_does_not_report_a_gateway_adopted_by_the_next_agent_as_an_orphan(configure, abandoned: int):
    config = configure()
    record(config.home, abandoned)
    identity = identify(os.getpid())  # this test is the agent
    assert identity
    write_pid_file(single_instance.pid_file(config.home), identity)
    assert [found.level for found in orphans.diagnose(config)] == ["ok"]


def test_doctor_reports_a_gateway_started_without_an_agent_as_a_note(configure, abandoned: int):
    (found,) = orphans.diagnose(configure())
    assert found.level == "note"
    assert "runs alone" in found.sentence


def test_doctor_ignores_a_gateway_of_another_home_folder(configure, abandoned: int, tmp_path: Path):
    assert [found.level for found in orphans.diagnose(configure(VESTAL_HOME=tmp_path / "other"))] == ["ok"]


def test_doctor_reports_a_zombie_child_of_a_vestal_process_as_a_note(configure, run: Run):
    config = configure()
    program = "import subprocess, signal; child = subprocess.Popen(['true']); signal.pause()"
    parent = run(
        *(sys.executable, "-c", program, "-m", "mlx_server.gateway"),
        env={**os.environ, "VESTAL_HOME": str(config.home.root)},
    )
    zombie = until(
        lambda: [p for p in psutil.Process(parent.pid).children() if p.status() == psutil.STATUS_ZOMBIE],
        "its child is a zombie",
    )[0]
    (found,) = orphans.diagnose(config)
    assert found.level == "note"
    assert f"PID {zombie.pid} is a zombie: mlx_server.gateway (PID {parent.pid})" in found.sentence


def test_doctor_reports_an_ollama_runner_whose_server_is_gone_as_an_orphan(
    configure, run: Run, tmp_path: Path
):
    # A Python under another name runs the file `runner`, so its command line is `/…/ollama runner`.
    (tmp_path / "runner").write_text("import signal; signal.pause()")
    config = configure(VESTAL_OLLAMA__MANAGE="auto")
    command = [str(tmp_path / "ollama"), "runner"]
    # It outlives the process that starts it.
    starts = "import os, sys; print(os.posix_spawn(sys.executable, sys.argv[1:], os.environ))"
    parent = run(
        *(sys.executable, "-c", starts, *command),
        cwd=tmp_path,
        env={**os.environ, "PYTHONHOME": ""},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    try:
        parent.wait(timeout=60)
        until(lambda: process_table.read()[pid].command.startswith(command[0]), "it runs")
        found = [finding for finding in faults(orphans.diagnose(config)) if str(pid) in finding.sentence]
        assert len(found) == 1
        assert found[0].remedy == f"`kill {pid}`"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_process_table_contains_this_process():
    me = process_table.read()[os.getpid()]
    assert (me.parent, me.uid) == (os.getppid(), os.getuid())
    assert Path(sys.executable).name.removesuffix("3") in me.command
    assert process_table.user_name(os.getuid()) == psutil.Process().username()


def test_doctor_orphan_check_without_the_ps_command_reports_a_fault(configure, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (findings,) = runner.run((orphans.DIAGNOSIS,), configure())
    assert [found.level for found in findings] == ["fault"]
    assert "could not be checked" in findings[0].sentence and "ps -axww" in findings[0].sentence
