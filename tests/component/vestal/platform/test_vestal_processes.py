"""Which real processes count as Vestal's servers; a server in a container does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vestal.platform.processes.vestal_processes import (
    server_module,
    server_module_of_command,
    servers_of_home,
)

PROGRAM = "import time; print('up', flush=True); time.sleep(60)"
IN_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")
OTHER_HOME = Path("/nowhere")


@pytest.fixture
def run_orchestrator(tmp_path: Path) -> Iterator[Callable[..., psutil.Process]]:
    """A function that runs a module named `orchestrator` for the home `tmp_path`, and returns its process."""
    (tmp_path / "orchestrator.py").write_text(PROGRAM)
    started: list[subprocess.Popen[str]] = []

    def start(*before: str) -> psutil.Process:
        env = {**os.environ, "VESTAL_HOME": str(tmp_path), "PYTHONPATH": ""}
        command = [*before, sys.executable, "-m", "orchestrator"]
        popen = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        started.append(popen)
        assert popen.stdout is not None and popen.stdout.readline() == "up\n"
        top = psutil.Process(popen.pid)
        return next((child for child in top.children()), top)

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


def test_vestal_server_is_found_for_its_own_home_folder_and_not_for_another(run_orchestrator, tmp_path: Path):
    pid = run_orchestrator().pid
    assert server_module(pid, tmp_path, OTHER_HOME) == "orchestrator"
    assert server_module(pid, tmp_path / "other", OTHER_HOME) is None
    assert (pid, "orchestrator") in servers_of_home(tmp_path, OTHER_HOME)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="makes a namespace of PIDs: root, Linux"
)
def test_vestal_server_in_a_container_is_not_found(run_orchestrator, tmp_path: Path):
    inside = run_orchestrator(*IN_PID_NAMESPACE)
    assert "orchestrator" in inside.cmdline()
    assert server_module(inside.pid, tmp_path, OTHER_HOME) is None


@pytest.mark.parametrize(
    ("line", "server"),
    [
        ("python -m host_agent.cli.main agent", "agent"),
        ("/x/.venv/bin/python /x/.venv/bin/vestal agent", "agent"),
        ("/x/.venv/bin/vestal server", "mlx_server.gateway"),
        ("/x/.venv/bin/python /x/.venv/bin/vestal doctor", None),
        ("/x/.venv/bin/vestal", None),
        ("python -m mlx_server.engine --fd 5", "mlx_server.engine"),
        ("python -m host_agent.cli.main status", None),
        ("vim vestal.yaml agent", None),
        ("python -m", None),
    ],
)
def test_vestal_server_is_recognized_by_its_command_line(line: str, server: str | None):
    assert server_module_of_command(line.split()) == server
