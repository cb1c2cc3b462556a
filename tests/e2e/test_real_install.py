"""`vestal install` with this machine's own launchd or systemd: a killed agent restarts, and nothing is left.

It runs only if VESTAL_TEST_REAL_INSTALL=1, since it installs jobs (in a home of its own) for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import processes_of

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("VESTAL_TEST_REAL_INSTALL") != "1", reason="VESTAL_TEST_REAL_INSTALL=1 asks for it"
    ),
]
REPO = Path(__file__).resolve().parents[2]
LOOK_AGAIN_S = 0.5


class Installed:
    """A home with its own installed jobs."""

    def __init__(self, home: Path, agent_port: int, mlx_port: int) -> None:
        self.home, self.agent_port, self.mlx_port = home, agent_port, mlx_port
        own = {
            "VESTAL_HOME": str(home),
            "VESTAL_AGENT_PORT": str(agent_port),
            "VESTAL_MLX_PORT": str(mlx_port),
            "VESTAL_OLLAMA__MANAGE": "off",
            "VESTAL_ORCHESTRATOR__MODE": "off",
            "VESTAL_MLX__WARM_SPARE": "false",
        }
        self.env = {**os.environ, **own}

    def vestal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
        return subprocess.run(command, env=self.env, cwd=REPO, capture_output=True, text=True, timeout=300)

    def shown(self) -> dict[str, Any]:
        jobs = json.loads(self.vestal("install", "--show", "--json").stdout)["jobs"]
        return {job["name"]: job for job in jobs}

    def pid(self, name: str) -> int | None:
        return self.shown()[name]["state"]["pid"]

    def gateway_pid(self) -> int | None:
        """Return the PID of the gateway, once the agent reports it as ready."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.agent_port}/status")
        request.add_header("Authorization", f"Bearer {(self.home / 'token').read_text().strip()}")
        with urllib.request.urlopen(request, timeout=10) as reply:
            row = json.loads(reply.read())["services"]["mlx_server"]
        return row["process_pid"] if row["state"] == "ready" else None

    def is_healthy(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.mlx_port}/health", timeout=10) as reply:
            return reply.status == 200

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.home)

    def logs(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text()[-4000:]}" for path in self.home.glob("logs/*.log"))

    def until(self, condition: Callable[[], Any], what: str, within_s: float = 120) -> Any:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if found := condition():
                    return found
            time.sleep(LOOK_AGAIN_S)
        raise AssertionError(f"not within {within_s} s: {what}\n{self.logs()}")


@pytest.fixture
def installed(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Installed]:
    jobs = Installed(tmp_path / "home", free_port(), free_port())
    yield jobs
    jobs.vestal("uninstall")
    jobs.vestal("down")
    for process in jobs.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_installed_agent_that_is_killed_is_restarted_and_uninstall_leaves_no_process(installed: Installed):
    done = installed.vestal("install")
    assert done.returncode == 0, done.stdout + done.stderr
    installed.until(installed.is_healthy, "the MLX server answers")
    gateway = installed.until(installed.gateway_pid, "the agent calls it ready")
    agent = installed.pid("agent")
    assert agent and psutil.pid_exists(agent)

    again = installed.vestal("install")
    assert again.returncode == 0, again.stdout + again.stderr
    assert installed.pid("agent") == agent, "what is installed already is left alone"

    os.kill(agent, signal.SIGKILL)
    # launchd and systemd leave 10 s between two starts.
    installed.until(lambda: installed.pid("agent") not in (None, agent), "another agent runs")
    assert installed.until(installed.gateway_pid, "the gateway is ready") == gateway, "adopted, not restarted"
    passed = installed.until(lambda: installed.shown()["recover"]["state"]["last_exit"], "a pass has run")
    assert passed in ("0", "1"), passed

    down = installed.vestal("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not installed.processes(), "what is kept alive stays down"
    back = installed.vestal("install")
    assert back.returncode == 0, back.stdout + back.stderr
    installed.until(installed.is_healthy, "the MLX server answers again")

    gone = installed.vestal("uninstall")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    installed.until(lambda: not installed.processes(), "no process of ours is left")
    assert installed.vestal("install", "--show").returncode == 1


def test_installed_server_without_agent_that_is_killed_is_restarted(installed: Installed):
    done = installed.vestal("install", "--server-only")
    assert done.returncode == 0, done.stdout + done.stderr
    installed.until(installed.is_healthy, "the MLX server answers")
    server = installed.pid("server")
    assert server
    os.kill(server, signal.SIGKILL)
    installed.until(lambda: installed.pid("server") not in (None, server), "another server runs")
    installed.until(installed.is_healthy, "it answers")
    gone = installed.vestal("uninstall")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    installed.until(lambda: not installed.processes(), "no process of ours is left")
