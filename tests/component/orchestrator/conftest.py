"""A real orchestrator process between a stand-in LLM server and a stand-in host agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import looks

TOKEN = "a-token-for-tests"
DEADLINE_S = 60.0
ORCHESTRATOR = ["-m", "orchestrator"]


def wait_until(what: str, look: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """The first truthy thing that `look` returns before the deadline."""
    for _ in looks(deadline_s, longest_pause_s=0.2):
        if found := look():
            return found
    raise AssertionError(f"{what}: not within {deadline_s} s")


def call(
    url: str, body: Any = None, method: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON (or text) of one request."""
    return call_with_headers(url, body, method, headers)[:2]


def call_with_headers(
    url: str, body: Any = None, method: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any, Message]:
    """Status, JSON (or text) and headers of one request."""
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=raw, method=method or ("GET" if raw is None else "POST"))
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, text, answered = reply.status, reply.read().decode(), reply.headers
    except urllib.error.HTTPError as error:
        with error:
            status, text, answered = error.code, error.read().decode(), error.headers
    try:
        return status, json.loads(text), answered
    except ValueError:
        return status, text, answered


# A shell has what it runs in the background ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Child:
    """A program that says `ready` (or answers) and is ended with the test."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, env=env, cwd=cwd, stdout=out, stderr=out)

    def end(self, number: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def suspend(self) -> None:
        """Send SIGSTOP, and return once the process is stopped: it must first be given a CPU."""
        self.process.send_signal(signal.SIGSTOP)
        stopped = psutil.STATUS_STOPPED
        wait_until("it is stopped", lambda: psutil.Process(self.process.pid).status() == stopped)

    def said(self) -> str:
        return self.log.read_text()


class StandIn(Child):
    """One of tests/children, on a port of its own."""

    def __init__(self, repo: Path, name: str, port: int, tmp: Path, *more: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(repo / "tests" / "children" / name), "--port", str(port), *more]
        super().__init__(command, dict(os.environ), repo, tmp / f"{name}.{port}.log")
        wait_until(f"{name} is ready", lambda: "ready" in self.said())

    def control(self, **settings: Any) -> None:
        assert call(f"{self.url}/control", settings)[0] == 200

    def calls(self, path: str) -> list[dict]:
        return [c["body"] for c in call(f"{self.url}/calls")[1]["calls"] if c["path"] == path]

    def posts(self) -> list[dict]:
        return call(f"{self.url}/posts")[1]["posts"]


class Orchestrator:
    """The process, its home and its API; it can be killed and started again on the same home."""

    def __init__(self, repo: Path, tmp: Path, port: int, **env: str) -> None:
        self.repo, self.tmp, self.port = repo, tmp, port
        self.home = tmp / "home"
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VESTAL_")},
            "VESTAL_TOKEN": TOKEN,
            "VESTAL_HOME": str(self.home),
            "VESTAL_ORCHESTRATOR_PORT": str(port),
            "VESTAL_KNOWLEDGE_DIR": str(tmp / "knowledge"),
            "OLLAMA_BASE_URL": "",
            "RECOVERY_WEBHOOK_URL": "",
            "ORCHESTRATOR_CYCLE_INTERVAL": "300",
            "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": "300",
            **env,
        }
        self.program = ORCHESTRATOR
        self.prefix: list[str] = []  # of the command that starts the process
        self.child: Child | None = None

    def start(self, command: str = "run", is_answering: bool = True) -> Orchestrator:
        """Start the process. Return when its API answers, unless it has none or is to end at once."""
        self.child = Child(
            [*self.prefix, sys.executable, *self.program, command],
            {**self.env, "PYTHONPATH": str(self.repo)},
            self.repo,
            self.tmp / f"orchestrator.{self.port}.log",
        )
        if command == "run" and is_answering:
            wait_until("the API answers", self._answers)
        return self

    def _answers(self) -> bool:
        assert self.child and self.child.process.poll() is None, self.said()
        try:
            return call(f"{self.url}/health")[0] == 200
        except OSError:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.child
        return self.child.process

    def end(self, number: int = signal.SIGKILL) -> int:
        return self.child.end(number) if self.child else 0

    def said(self) -> str:
        return self.child.said() if self.child else ""

    def events(self, name: str) -> list[dict]:
        text = self.said()
        whole = text[: text.rfind("\n") + 1]  # the process may be writing the last line
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [event for event in lines if event["event"] == name]

    def ask(
        self, path: str, body: Any = None, method: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        token = {"Authorization": f"Bearer {self.env['VESTAL_TOKEN']}"}
        return call(self.url + path, body, method, {**token, **(headers or {})})

    def ask_with_headers(self, path: str, body: Any = None, method: str = "") -> tuple[int, Any, Message]:
        token = {"Authorization": f"Bearer {self.env['VESTAL_TOKEN']}"}
        return call_with_headers(self.url + path, body, method, token)

    def tasks(self) -> list[dict]:
        status, answer = self.ask("/tasks")
        assert status == 200, answer
        return answer["tasks"]

    def submit(self, goal: str, **more: Any) -> str:
        status, answer = self.ask("/tasks", {"goal": goal, **more})
        assert status == 201, answer
        return answer["id"]

    def task(self, task_id: str) -> dict:
        status, task = self.ask(f"/tasks/{task_id}")
        assert status == 200, task
        return task

    def finished(self, task_id: str, state: str = "done") -> dict:
        return wait_until(
            f"task {state}", lambda: (t := self.task(task_id))["state"] == state and t, DEADLINE_S
        )

    def cycle(self, *having: str) -> dict:
        """The newest cycle whose record contains all the given words."""

        def look() -> dict | None:
            for cycle in self.ask("/cycles?limit=500")[1]["cycles"]:
                if all(word in json.dumps(cycle) for word in having):
                    return cycle
            return None

        return wait_until(f"a cycle with {having}", look)


def patient(repo: Path) -> list[str]:
    """Return the program of an orchestrator that waits longer for backends and the host agent than others."""
    return [str(repo / "tests" / "children" / "patient_orchestrator.py")]


def phase(cycle: dict, name: str) -> dict:
    return next(p for p in cycle["phases"] if p["phase"] == name)


@pytest.fixture
def children(repo: Path, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., StandIn]]:
    """A function that starts a stand-in by its file name."""
    started: list[StandIn] = []

    def start(name: str, *more: str, port: int = 0) -> StandIn:
        started.append(StandIn(repo, name, port or free_port(), tmp_path, *more))
        return started[-1]

    yield start
    for child in started:
        child.end()


@pytest.fixture
def llm(children: Callable[..., StandIn]) -> StandIn:
    return children("fake_llm.py")


@pytest.fixture(scope="module")
def shared_llm(
    repo: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[StandIn]:
    """The LLM server of `shared`. Its settings are as they were when a test ends."""
    llm = StandIn(repo, "fake_llm.py", free_port(), tmp_path_factory.mktemp("llm"))
    yield llm
    llm.end()


@pytest.fixture(scope="module")
def shared(
    repo: Path,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    shared_llm: StandIn,
) -> Iterator[Orchestrator]:
    """One orchestrator for a file's tests that do not stop it and do not mind the tasks of others."""
    one = Orchestrator(repo, tmp_path_factory.mktemp("shared"), free_port(), MLX_API_URL=shared_llm.url)
    one.program = patient(repo)
    one.start().cycle()
    yield one
    one.end()


@pytest.fixture
def orchestrator(
    repo: Path, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Callable[..., Orchestrator]]:
    """A function that makes an orchestrator (not yet started) with the given environment. It waits longer for
    backends than others, unless its `program` is set to ORCHESTRATOR.
    """
    made: list[Orchestrator] = []

    def make(**env: str) -> Orchestrator:
        made.append(Orchestrator(repo, tmp_path, free_port(), **env))
        made[-1].program = patient(repo)
        return made[-1]

    yield make
    for one in made:
        if one.child:
            one.child.end()
