"""Run the orchestrator's image in a container with a memory limit, and a stand-in for the models."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from vestal.platform.network import bridge_address

REPO = Path(__file__).resolve().parents[2]
IMAGE = "vestal-bench-orchestrator:local"
TOKEN = "a-token-for-benchmarks"
LOOK_S = 0.05
PROBE = Path(__file__).with_name("probe.py")


def docker(*arguments: str, given: str | None = None, timeout_s: float = 600) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )
    if done.returncode:
        raise SystemExit(f"docker {arguments[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def build() -> None:
    """Build the image from this checkout, with VESTAL_PYTHON_IMAGE and VESTAL_BUILD_CA as in `make up`."""
    base = os.environ.get("VESTAL_PYTHON_IMAGE", "python:3.12-slim")
    secret = f"id=ca,src={os.environ.get('VESTAL_BUILD_CA', '/dev/null')}"
    where = ["--file", str(REPO / "deploy" / "Dockerfile"), "--tag", IMAGE, str(REPO)]
    docker("build", "--quiet", "--build-arg", f"PYTHON_IMAGE={base}", "--secret", secret, *where)


@contextlib.contextmanager
def stand_in() -> Iterator[StandInControl]:
    """Run the stand-in for the models, at an address that containers can reach, in the `with` block."""
    address = bridge_address() or "127.0.0.1"
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.orchestrator.stand_in"]
    process = subprocess.Popen(
        [*command, "--bind", address, "--port", str(port)], cwd=REPO, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        yield StandInControl(f"http://{address}:{port}", f"http://host.docker.internal:{port}")
    finally:
        process.kill()
        process.wait(10)


class StandInControl:
    def __init__(self, url: str, inside: str) -> None:
        self.url, self.inside = url, inside

    def control(self, **settings: Any) -> None:
        ask(f"{self.url}/control", settings)

    def work(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(f"{self.url}/work")
        return found


class ReachableModels(Protocol):
    """A stand-in for the models. `inside` is the URL by which a container reaches it."""

    @property
    def inside(self) -> str: ...


class Container:
    """A container of the orchestrator's image, with its own volume and knowledge folder. `start` starts it.
    Container, volume and folder are removed when the `with` block ends.

    `models` stands in for the model servers. `mem_limit` is the container's memory limit as Docker writes it,
    such as `512m`. `command` is the command of the orchestrator that runs in the container, such as `run`,
    and `env` holds additional environment variables.
    """

    def __init__(self, models: ReachableModels, mem_limit: str, command: str = "run", **env: str) -> None:
        self.name = f"vestal-bench-{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self.knowledge = Path(tempfile.mkdtemp(prefix="vestal-bench-"))
        self.knowledge.chmod(0o755)
        self._limit, self._command = mem_limit, command
        self._env = {
            "VESTAL_TOKEN": TOKEN,
            "MLX_API_URL": models.inside,
            "OLLAMA_BASE_URL": "",
            "RECOVERY_WEBHOOK_URL": "",
            "ORCHESTRATOR_CYCLE_INTERVAL": "300",
            **env,
        }

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["docker", "rm", "-f", self.name], capture_output=True)
        subprocess.run(["docker", "volume", "rm", self.name], capture_output=True)
        shutil.rmtree(self.knowledge, ignore_errors=True)

    def start(self) -> None:
        limits = ["--memory", self._limit, "--memory-swap", self._limit]
        network = ["--add-host", "host.docker.internal:host-gateway", "--publish", "127.0.0.1::8088"]
        mounts = ["--volume", f"{self.name}:/data", "--volume", f"{self.knowledge}:/knowledge:ro"]
        env = [part for name, value in self._env.items() for part in ("--env", f"{name}={value}")]
        network += ["--log-opt", "max-size=10m"]
        options = ["--detach", "--init", "--name", self.name, *limits, *network, *mounts, *env]
        docker("run", *options, IMAGE, self._command)
        self._url = "http://" + docker("port", self.name, "8088/tcp").splitlines()[0]

    def remove(self) -> None:
        """Remove the container, but keep its volume."""
        docker("rm", "-f", self.name)

    def ask(self, path: str, body: Any = None) -> Any:
        return ask(self._url + path, body, {"Authorization": f"Bearer {TOKEN}"})

    def python(self, program: str) -> str:
        """Run the source text `program` with Python in the orchestrator's container, and return its
        output.
        """
        return docker("exec", "-i", self.name, "python", "-", given=program)

    def probe(self) -> dict[str, Any]:
        """Return the figures that probe.py prints: of the process, its cgroup and its databases."""
        found: dict[str, Any] = json.loads(self.python(PROBE.read_text()))
        return found

    def first_cycle(self, timeout_s: float = 60) -> dict[str, Any]:
        """Wait until the orchestrator has completed a cycle since the container's volume, which holds its
        data, was created. Return what GET /cycles reports of the first such cycle, such as its duration.
        Raises SystemExit if there is none within `timeout_s` seconds.
        """
        cycles = self.until(lambda: self.ask("/cycles?limit=500")["cycles"], "a first cycle", timeout_s)
        first: dict[str, Any] = cycles[-1]
        return first

    def until(self, look: Callable[[], Any], what: str, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                found = look()
                if found:
                    return found
            time.sleep(LOOK_S)
        log = subprocess.run(["docker", "logs", "--tail", "5", self.name], capture_output=True, text=True)
        raise SystemExit(f"not within {timeout_s:.0f} s: {what}\n{log.stdout}{log.stderr}")


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers or {})
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            raw = reply.read()
    except urllib.error.HTTPError as error:
        with error:
            raise SystemExit(f"{url}: {error.code} {error.read()[:500]!r}") from None
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()
