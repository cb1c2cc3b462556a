"""The command `vestal` as a process, in a home and on ports of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[4]


@pytest.fixture
def vestal(home: Path, free_port: Callable[[], int]) -> Vestal:
    """Return a function that runs `vestal` with a home and ports of its own, if nothing runs."""
    names = ("VESTAL_MLX_PORT", "VESTAL_AGENT_PORT", "VESTAL_ORCHESTRATOR_PORT")
    foreign = ("VESTAL_", "MLX_", "OLLAMA_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {name: str(free_port()) for name in names} | {
        "VESTAL_HOME": str(home),
        "VESTAL_OLLAMA__MANAGE": "off",
    }

    return Vestal(clean | own)


class Vestal:
    """Runs `vestal` in one environment."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **env) as process:
            out, errors = process.communicate(timeout=115)
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return self._start(arguments, env, subprocess.DEVNULL, subprocess.PIPE)

    def start_on(self, terminal: int, *arguments: str) -> subprocess.Popen[str]:
        """Run the command on a terminal, which is its input and its output."""
        return self._start(arguments, {"TERM": "xterm"}, terminal, terminal)

    def _start(
        self, arguments: tuple[str, ...], env: dict[str, str], stdin: int, stdout: int
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
        env = self.env | env
        for of_the_test_run in ("COLUMNS", "LINES"):  # they would hide the terminal's own size
            env.pop(of_the_test_run, None)
        return subprocess.Popen(
            command,
            env=env,
            cwd=REPO,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return stderr, which must be one line."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vestal: ")
    return lines[0]
