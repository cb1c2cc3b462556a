"""Fixtures: a home, a user's folder and free ports; HTTP servers with given answers; processes."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from host_agent.doctor import Finding
from tests.component.host_agent.conftest import WITHIN_S
from tests.waiting import looks
from vestal.config import Config, load

Answers = dict[str, tuple[int, Any]]
CHILDREN = Path(__file__).resolve().parents[3] / "children"
# What Ollama without models answers.
EMPTY_OLLAMA_ANSWERS = {"/api/tags": (200, {"models": []}), "/api/version": (200, {"version": "0.15.5"})}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user without Ollama and Docker."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    return tmp_path


@pytest.fixture
def configure(home: Path, user: Path, free_port: Callable[[], int]) -> Callable[..., Config]:
    """Return a function that loads the settings of this home; keyword arguments are variables."""
    names = ("VESTAL_MLX_PORT", "VESTAL_AGENT_PORT", "VESTAL_ORCHESTRATOR_PORT")
    ports = {name: str(free_port()) for name in names}
    own = {"VESTAL_HOME": str(home), "HOME": str(user), "VESTAL_OLLAMA__MANAGE": "off"}

    def make(**settings: object) -> Config:
        return load(ports | own | {name: str(value) for name, value in settings.items()}, user)

    return make


@pytest.fixture
def serve(free_port: Callable[[], int]) -> Iterator[Callable[[Answers], int]]:
    """Return a function that starts an HTTP server with these answers by path, and returns its port."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answers: Answers) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.get(self.path, (404, {"error": "not found"}))
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts a process; after the test it is killed with its descendants."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        if process.stdout:
            process.stdout.close()
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has just ended
                    child.kill()
        process.kill()
        process.wait()


def until(condition: Callable[[], Any], what: str, timeout_s: float = WITHIN_S) -> Any:
    for _ in looks(timeout_s):
        if found := condition():
            return found
    raise AssertionError(f"not within {timeout_s} s: {what}")


def faults(findings: Iterator[Finding] | list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "fault"]


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    made = configure()
    made.home.prepare()
    return made


@pytest.fixture
def config_with_ollama(configure: Callable[..., Config]) -> Callable[[int], Config]:
    """Return a function that loads settings with Ollama on this port."""

    def make(port: int) -> Config:
        return configure(VESTAL_OLLAMA__MANAGE="auto", VESTAL_OLLAMA__BASE_URL=f"http://127.0.0.1:{port}")

    return make
