"""Which processes are ours: a container's are not, though the host sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vestal.platform.processes import vestal_processes

PROGRAM = "import time; print('up', flush=True); time.sleep(60)"
APART = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., psutil.Process]]:
    """Runs a module named as one of ours, for a home; the process of its Python."""
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


def test_process_for_this_home_is_ours_and_for_another_not(run, tmp_path: Path):
    pid = run().pid
    assert vestal_processes.server_module(pid, tmp_path, Path("/nowhere")) == "orchestrator"
    assert vestal_processes.server_module(pid, tmp_path / "other", Path("/nowhere")) is None
    assert (pid, "orchestrator") in vestal_processes.servers_of_home(tmp_path, Path("/nowhere"))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="makes a namespace of PIDs: root, Linux"
)
def test_process_in_a_container_is_not_ours(run, tmp_path: Path):
    inside = run(*APART)
    assert "orchestrator" in inside.cmdline()
    assert vestal_processes.server_module(inside.pid, tmp_path, Path("/nowhere")) is None


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
def test_servers_are_told_by_their_command_line(line: str, server: str | None):
    assert vestal_processes.server_module_of_command(line.split()) == server
