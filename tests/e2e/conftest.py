"""A whole stack, started with the `vestal` command in a home and on ports of its own, as by a user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.containers import lacking
from tests.processes import processes_of
from tests.waiting import looks
from vestal.platform.network import bridge_address

VESTAL = Path(sys.executable).parent / "vestal"


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Stack:
    home: Path
    env: dict[str, str]
    mlx_port: int
    agent_port: int
    orchestrator_port: int
    up_output: str = field(default="", init=False)
    project: str = field(default="", init=False)

    def vestal(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(VESTAL), *arguments],
            env=self.env,
            cwd=self.env["VESTAL_TEST_REPO"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def request(
        self,
        port: int,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        token: str = "",
        timeout_s: float = 120,
    ) -> Answer:
        """One HTTP exchange on loopback, with the stack's token if `token` is empty; an error status is an
        answer, not an exception.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
        request.add_header("Authorization", f"Bearer {token or self.token}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return _answer(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(), error.headers)

    def mlx(self, path: str, body: Any = None, **options: Any) -> Answer:
        return self.request(self.mlx_port, path, body, **options)

    def agent(self, path: str, body: Any = None, **options: Any) -> Answer:
        return self.request(self.agent_port, path, body, **options)

    def orchestrator(self, path: str, body: Any = None, **options: Any) -> Answer:
        return self.request(self.orchestrator_port, path, body, **options)

    @property
    def token(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.home / "token").read_text().strip()
        return "none"

    def service(self, name: str) -> dict[str, Any]:
        return self.agent("/status").body["services"][name]

    def pid(self, name: str) -> int:
        """The PID of a service, waited for: right after a restart there may be none for a moment."""
        return self.until(lambda: self.service(name)["process_pid"], f"{name} has a PID")

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
        """The first true value of `condition`; a refused connection or a missing key counts as not yet."""
        last: object = None
        for _ in looks(timeout_s, longest_pause_s=0.2):
            try:
                last = condition()
                if last:
                    return last
            except (OSError, KeyError, IndexError, TypeError) as error:
                last = error
        raise AssertionError(f"not within {timeout_s:.0f} s: {what}; last: {last!r}\n{self.tails()}")

    def until_healthy(self, timeout_s: float = 240) -> None:
        self.until(lambda: self.agent("/status").body["healthy"], "the stack is healthy", timeout_s)

    def journal(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.agent("/journal?since=0").body["events"] if entry["event"] == event]

    def tails(self, lines: int = 15) -> str:
        """The end of every log, for the report of a failure."""
        logs = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text().splitlines()[-lines:]) for p in logs)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started for this stack: it carries this home in its environment."""
        return [process for process in processes_of(self.home) if process.pid != os.getpid()]

    def listening(self) -> list[int]:
        """Which of the stack's ports somebody listens on."""
        ports = {self.mlx_port, self.agent_port, self.orchestrator_port}
        listeners = psutil.net_connections(kind="tcp")
        return sorted({c.laddr.port for c in listeners if c.status == "LISTEN" and c.laddr} & ports)


def _answer(status: int, raw: bytes, headers: Any) -> Answer:
    try:
        body = json.loads(raw)
    except ValueError:
        body = raw.decode(errors="replace")
    return Answer(status, body, {key.lower(): value for key, value in headers.items()})


def _environment(
    home: Path, ports: dict[str, str], repo: Path, models: Path, extra: dict[str, str]
) -> dict[str, str]:
    kept = ("VESTAL_PYTHON_IMAGE", "VESTAL_BUILD_CA")
    foreign = ("VESTAL_", "MLX_", "OLLAMA_")
    clean = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(foreign)}
    own = {"VESTAL_HOME": str(home), "VESTAL_MODELS_DIR": str(models), "VESTAL_TEST_REPO": str(repo)}
    # Nobody listens here: an Ollama on the developer's machine is not part of the tests.
    return clean | own | {"VESTAL_OLLAMA__MANAGE": "off"} | ports | extra


def _remove_from_docker(project: str) -> None:
    """`down` keeps the volume, a user's tasks; a test's go, and its image."""
    for command in (["volume", "rm", f"{project}_data"], ["image", "rm", f"{project}-orchestrator:local"]):
        subprocess.run(["docker", *command], capture_output=True, timeout=300)


@dataclass(frozen=True)
class Models:
    """tests/children/fake_llm.py, where containers reach it too."""

    address: str
    port: int

    @property
    def from_this_machine(self) -> str:
        """The URL for a stack's configuration, which knows what containers call this machine."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def inside(self) -> str:
        """The URL as a container says it."""
        return f"http://host.docker.internal:{self.port}"

    def control(self, **settings: Any) -> None:
        self._ask("/control", settings)

    def calls(self, path: str) -> list[dict[str, Any]]:
        return [call for call in self._ask("/calls")["calls"] if call["path"] == path]

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}:{self.port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.loads(reply.read())


@pytest.fixture(scope="module")
def models(repo: Path, free_port: Callable[[], int], docker_engine: None) -> Iterator[Models]:
    """A stand-in for the models, in Ollama's dialect."""
    found = Models(bridge_address() or "127.0.0.1", free_port())
    program = [sys.executable, str(repo / "tests" / "children" / "fake_llm.py")]
    options = ["--bind", found.address, "--port", str(found.port)]
    with subprocess.Popen([*program, *options], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        yield found
        child.kill()


@pytest.fixture(scope="session")
def few_docs(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three of the project's pages: all of them take the embedding model 20 s."""
    folder = tmp_path_factory.mktemp("docs")
    folder.chmod(0o755)  # the containers' user is another
    for page in sorted((repo / "docs" / "decisions").glob("000[123]-*.md")):
        shutil.copy(page, folder)
    return folder


@pytest.fixture(scope="session")
def docker_engine(repo: Path) -> None:
    """Skips where no container can run, and fails there if they are required."""
    if why := lacking(repo):
        assert "VESTAL_TEST_REQUIRE_DOCKER" not in os.environ, f"containers are required here: {why}"
        pytest.skip(why)


@pytest.fixture(scope="module")
def make_stack(
    tmp_path_factory: pytest.TempPathFactory, repo: Path, models_dir: Path, free_port: Callable[[], int]
) -> Iterator[Callable[..., Stack]]:
    """A function that makes a stack (not started); all are taken down at the end, whatever happened."""
    made: list[Stack] = []

    def make(**extra: str) -> Stack:
        home = tmp_path_factory.mktemp("home")
        names = ("VESTAL_MLX_PORT", "VESTAL_AGENT_PORT", "VESTAL_ORCHESTRATOR_PORT")
        ports = {name: str(free_port()) for name in names}
        stack = Stack(
            home,
            _environment(home, ports, repo, models_dir, extra),
            **{name.removeprefix("VESTAL_").lower(): int(port) for name, port in ports.items()},
        )
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.vestal("down")
        if stack.project:
            _remove_from_docker(stack.project)
        for process in stack.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(stack.home, ignore_errors=True)
