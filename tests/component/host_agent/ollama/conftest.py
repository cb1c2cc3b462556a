"""A program that behaves like Ollama, on a PATH and a port of its own, and an agent that finds it there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from host_agent.services.ollama.probe import OllamaProbe
from host_agent.services.ollama.runners import RunnerLook
from tests.children import stand_in_ollama
from tests.component.host_agent.conftest import WITHIN_S, AgentUnderTest
from tests.waiting import looks
from vestal.config.settings import OllamaSection
from vestal.platform.processes import process_lookup
from vestal.platform.processes.process_snapshot import ProcessSnapshot


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the probes of this process wait for servers that a busy machine lets run only after seconds."""
    monkeypatch.setattr("host_agent.services.ollama.probe.SERVER_INFO_TIMEOUT_S", WITHIN_S)
    monkeypatch.setattr("host_agent.services.ollama.runners.SLOTS_TIMEOUT_S", WITHIN_S)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class StandIn:
    """A program `ollama` on a PATH of its own, a file that controls it, and the servers started by hand."""

    def __init__(self, folder: Path, port: int) -> None:
        self.program = stand_in_ollama.install(folder / "bin")
        self.control, self.port, self.home = folder / "control.json", port, folder / "user"
        self.home.mkdir()
        self.by_hand: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{self.program.parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "STAND_IN_OLLAMA": str(self.control),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
        }

    def misbehave(self, **how: Any) -> None:
        """Control the servers from now on; without arguments they work again."""
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(how))
        fresh.rename(self.control)

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a server as a person would, in a session that has ended, and wait until it answers."""
        process = subprocess.Popen(
            [str(self.program), "serve"],
            env={k: v for k, v in os.environ.items() if not k.startswith("VESTAL_")} | self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.by_hand.append(process)
        self.until_it_answers()
        return process

    def until_it_answers(self) -> None:
        """Wait until a server answers at this port. An agent that starts earlier may start one of its own."""
        for _ in looks(WITHIN_S):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/version", timeout=30).close()
                return
        raise AssertionError("the stand-in does not answer")

    def generate(self, model: str = "smollm2:135m", timeout_s: float = 30) -> dict[str, Any]:
        body = json.dumps({"model": model, "prompt": "one", "stream": False}).encode()
        url = f"http://127.0.0.1:{self.port}/api/generate"
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=timeout_s) as reply:
            return json.loads(reply.read())

    def runners(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if str(self.program) in line and "runner" in line and process.status() != "zombie":
                    found.append(process.pid)
        return found


@pytest.fixture
def ollama(tmp_path: Path, free_port: Callable[[], int], agent: AgentUnderTest) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path, free_port())
    own = {
        "VESTAL_OLLAMA__MANAGE": "auto",
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{stand_in.port}",
        "VESTAL_OLLAMA__PROBE_INTERVAL_S": "0.1",
        "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.05",
    }
    agent.env |= stand_in.env | own
    yield stand_in
    stand_in.misbehave()
    if agent.process and agent.process.poll() is None:
        agent.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.process.communicate(timeout=30)
    for process in stand_in.by_hand:
        process.kill()
        process.wait()
    for pid in stand_in.runners():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def status_of(agent: AgentUnderTest) -> dict[str, Any]:
    return agent.status()["services"]["ollama"]


def ready(agent: AgentUnderTest, but: int | None = None) -> int:
    """Wait until a server is ready and return its PID, which is not `but`."""

    def found() -> int | None:
        seen = status_of(agent)
        pid = seen["process_pid"]
        return pid if seen["state"] == "ready" and pid != but else None

    return int(agent.until(found, "Ollama is ready"))


class Server:
    """A running program that behaves like `ollama serve`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.control = port, folder / "control.json"
        self.section = OllamaSection(base_url=f"http://127.0.0.1:{port}", probe_interval_s=0.001)
        env = os.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}", "STAND_IN_OLLAMA": str(self.control)}
        command = [str(stand_in_ollama.install(folder)), "serve"]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        for _ in looks(WITHIN_S):
            with contextlib.suppress(OSError):
                self.ask("/api/version")
                return
        raise AssertionError("the stand-in does not come up")

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=30) as reply:
            return json.loads(reply.read())

    def use(self, model: str, **body: Any) -> datetime:
        """Use a model, and return its unload time, which Ollama sets only after its answer."""
        before = self.unload_time(model)
        self.ask("/api/generate", model=model, prompt="one", **body)
        seen = None
        for _ in looks(WITHIN_S):
            last, seen = seen, self.unload_time(model)
            if seen is not None and seen == last and seen != before:  # until it is set, it moves with time
                return seen
        raise AssertionError(f"the unload time of {model} is not set")

    def unload_time(self, model: str) -> datetime | None:
        """Return when Ollama will unload the model; None if it is not loaded."""
        times = {listed["name"]: listed["expires_at"] for listed in self.ask("/api/ps")["models"]}
        return datetime.fromisoformat(times[model]) if model in times else None

    def misbehave(self, **how: Any) -> None:
        """Control the server from now on; without arguments it works again."""
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(how))
        fresh.rename(self.control)

    def runners(self) -> tuple[int, ...]:
        return tuple(child.pid for child in psutil.Process(self.process.pid).children())

    def runner_snapshots(self) -> tuple[ProcessSnapshot, ...]:
        return tuple(filter(None, map(process_lookup.snapshot, self.runners())))

    async def until_runner(self, busy: bool) -> None:
        """Wait until the runner uses the CPU, or does not: it looks now and then at what it is to do."""
        cpu_s = lambda: sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.runners())  # noqa: E731
        async with asyncio.timeout(WITHIN_S):
            while True:
                before = cpu_s()
                await asyncio.sleep(0.3)
                if (cpu_s() > before) == busy:
                    return


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    running = Server(tmp_path, free_port())
    yield running
    running.misbehave()
    running.process.terminate()
    running.process.wait()


SHORT_S = 0.3
"""How long a probe waits for the token of a server that gives none."""


def probe(
    server: Server, session: aiohttp.ClientSession, token_timeout_s: float = WITHIN_S, **settings: Any
) -> OllamaProbe:
    """Return a probe of the server that waits long for a token, unless it is expected to get none."""
    section = server.section.model_copy(update=settings)
    look = RunnerLook(session, server.runner_snapshots, lambda: None)
    return OllamaProbe(section, session, look, token_timeout_s)


def wait_for_tokens(probe: OllamaProbe, within_s: float = WITHIN_S) -> None:
    """Let the further checks of a probe wait so long for a token."""
    probe._token_timeout_s = within_s
