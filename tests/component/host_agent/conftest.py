"""A real agent process with a fake gateway, in a home and on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import processes_of
from tests.waiting import looks

REPO = Path(__file__).resolve().parents[3]
PROGRAM = REPO / "tests" / "children" / "agent_with_fake_gateway.py"
FAST = {
    "VESTAL_OLLAMA__MANAGE": "off",
    "VESTAL_ORCHESTRATOR__MODE": "off",
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__STOP_S": "1",
    "VESTAL_MLX__DRAIN_S": "1",
    # Nothing recovers by itself: a test requests each recovery pass.
    "VESTAL_SUPERVISION__HEALTH_INTERVAL_S": "900",
    "VESTAL_AGENT__MONITOR_INTERVAL_S": "900",
}
WITHIN_S = 60.0
"""How long a test waits for a state. No test measures this: on a busy machine, an agent and its gateway take
long to start.
"""


class AgentUnderTest:
    """One home, and the agent processes started for it."""

    def __init__(self, home: Path, agent_port: int, mlx_port: int) -> None:
        self.home, self.port, self.mlx_port = home, agent_port, mlx_port
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VESTAL_", "MLX_", "OLLAMA_"))}
        own = {"VESTAL_HOME": home, "VESTAL_AGENT_PORT": agent_port, "VESTAL_MLX_PORT": mlx_port}
        self.env = clean | FAST | {name: str(value) for name, value in own.items()}
        self.process: subprocess.Popen[str] | None = None

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        """Start an agent process for this home, and return without waiting."""
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            env=self.env,
            cwd=REPO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str) -> AgentUnderTest:
        self.process = self.launch(*arguments)
        self.gateway()
        return self

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.communicate()

    def ask(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        request.add_header("Authorization", f"Bearer {(self.home / 'token').read_text().strip()}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def status(self) -> dict[str, Any]:
        return self.ask("/status")[1]

    def gateway(self) -> int:
        """Return the PID of the gateway, once it is ready."""
        row = self.until(self._ready_row, "a gateway is ready")
        return int(row["process_pid"])

    def _ready_row(self) -> dict[str, Any] | None:
        row = self.status()["services"]["mlx_server"]
        return row if row["state"] == "ready" and row["process_pid"] else None

    def recover(self) -> dict[str, Any]:
        """Run one recovery pass, and return its report."""
        return self.pass_done(self.begin_pass())

    def begin_pass(self) -> str:
        """Request a recovery pass, and return its id."""
        code, run = self.ask("/recover", {})
        assert code == 202, run
        return str(run["run_id"])

    def pass_done(self, run_id: str) -> dict[str, Any]:
        """Return the report of a pass, once it has ended."""
        done = lambda: (r := self.ask(f"/recover/{run_id}")[1])["state"] == "done" and r  # noqa: E731
        return self.until(done, "the pass ends")

    def journal(self) -> list[dict[str, Any]]:
        return self.ask("/journal?since=0")[1]["events"]

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = WITHIN_S) -> Any:
        last: object = None
        for _ in looks(timeout_s):
            with contextlib.suppress(OSError, KeyError):
                last = condition()
                if last:
                    return last
        raise AssertionError(f"not within {timeout_s} s: {what}; last: {last!r}")

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.home)

    def end_all(self) -> None:
        """Kill every process of this home, and those that were started meanwhile, such as by a watchdog."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        if self.process:
            self.process.communicate(timeout=30)  # without a timeout it fails if it was called before


def suspend(pid: int) -> None:
    """Send SIGSTOP, and return once the process is stopped: it must first be given a CPU."""
    os.kill(pid, signal.SIGSTOP)
    for _ in looks(WITHIN_S):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return
    raise AssertionError(f"PID {pid} does not stop")


@pytest.fixture
def agent(home: Path, free_port: Callable[[], int]) -> Iterator[AgentUnderTest]:
    under_test = AgentUnderTest(home, free_port(), free_port())
    yield under_test
    if under_test.process and under_test.process.poll() is None:
        under_test.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            under_test.process.communicate(timeout=30)
    under_test.end_all()
