"""Ollama, looked at: absent is no fault, silent is one, and an answer must mean something."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web

from host_agent.services.ollama import OllamaService, installation
from host_agent.services.ollama.probe import Probe
from tests.children import stand_in_ollama
from vestal.config import load
from vestal.config.settings import OllamaSection
from vestal.supervision import MemoryStateStore, State

Serve = Callable[..., int]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def answering(port: int, tags: object, status: int = 200) -> web.AppRunner:
    app = web.Application()

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": "0.12.0"}, status=status)

    async def models(request: web.Request) -> web.Response:
        return web.json_response(tags, status=status)

    app.add_routes([web.get("/api/version", version), web.get("/api/tags", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


def service(home: Path, port: int, session: aiohttp.ClientSession, manage: str = "auto") -> OllamaService:
    environment = {
        "VESTAL_HOME": str(home),
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{port}",
        "VESTAL_OLLAMA__MANAGE": manage,
    }
    return OllamaService(load(environment, cwd=home), session, MemoryStateStore(), lambda event: None)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Ollama, and a user without models."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("tags", "status", "state", "words"),
    [
        ({"models": [{"name": "a"}]}, 200, State.READY, "version 0.12.0, 1 model;"),
        ({"models": []}, 200, State.READY, "no models yet"),
        ({"models": None}, 200, State.DEGRADED, "200 to /api/tags"),
        ({"error": "reentrancy"}, 500, State.DEGRADED, "500 to /api/tags (reentrancy)"),
    ],
)
async def test_answer_decides_the_state(
    session, bare, home, free_port: Callable[[], int], tags: object, status: int, state: State, words: str
):
    port = free_port()
    runner = await answering(port, tags, status)
    row = await service(home, port, session).row()
    await runner.cleanup()
    assert row.state is state
    assert words in row.detail


async def test_silence_where_it_is_installed_is_a_fault_with_the_remedy(session, bare, home, free_port):
    stand_in_ollama.install(bare)
    for manage, remedy in (("auto", "recovery pass starts it"), ("watch", "`ollama serve`")):
        row = await service(home, free_port(), session, manage).row()
        assert row.state is State.STOPPED
        assert remedy in row.detail
        assert not row.well


@pytest.mark.skipif(installation.installed(), reason="Ollama is installed here, in one of its usual places")
@pytest.mark.parametrize(("manage", "state"), [("auto", State.ABSENT), ("always", State.STOPPED)])
async def test_silence_where_it_is_not_installed_is_a_fault_only_where_it_must_be(
    session, bare, home, free_port, manage: str, state: State
):
    row = await service(home, free_port(), session, manage).row(fresh=True)
    assert row.state is state
    assert row.well == (state is State.ABSENT)
    assert "not installed" in row.detail


async def test_switched_off_it_is_not_asked(session, home, free_port):
    port = free_port()
    runner = await answering(port, {"models": []})
    row = await service(home, port, session, "off").row(fresh=True)
    await runner.cleanup()
    assert (row.state, row.expected) == (State.ABSENT, False)


async def test_where_the_mlx_server_stands_in_for_it_there_is_no_other(session, home):
    under_test = service(home, 11435, session)
    row = await under_test.row()
    assert (row.state, row.expected) == (State.ABSENT, False)
    assert "stands in" in under_test.refusal("start")


# --- a server that misbehaves ----------------------------------------------------------------------------


class Server:
    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.control = port, folder / "control.json"
        self.section = OllamaSection(base_url=f"http://127.0.0.1:{port}", probe_interval_s=0.001)
        env = os.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}", "STAND_IN_OLLAMA": str(self.control)}
        command = [str(stand_in_ollama.install(folder)), "serve"]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                self.ask("/api/version")
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the stand-in does not come up")

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=5) as reply:
            return json.loads(reply.read())

    def tell(self, **how: Any) -> None:
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(how))
        fresh.rename(self.control)

    def runners(self) -> tuple[int, ...]:
        return tuple(child.pid for child in psutil.Process(self.process.pid).children())


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    running = Server(tmp_path, free_port())
    yield running
    running.tell()
    running.process.terminate()
    running.process.wait()


def probe(server: Server, session: aiohttp.ClientSession, **settings: Any) -> Probe:
    section = server.section.model_copy(update=settings)
    return Probe(section, session, server.runners, token_within_s=0.3)


async def test_probe_asks_no_model_where_none_is_loaded(server, session):
    check = await probe(server, session).check()
    assert check.verdict.ok
    assert server.ask("/api/ps") == {"models": []}


async def test_probe_loads_the_model_it_is_told_to_ask(server, session):
    check = await probe(server, session, probe_model="all-minilm").check()
    assert check.verdict.ok
    assert [m["name"] for m in server.ask("/api/ps")["models"]] == ["all-minilm:latest"]


async def test_probe_leaves_a_loaded_model_and_its_time_as_they_are(server, session):
    body = {"model": "smollm2:135m", "options": {"num_ctx": 2048}, "keep_alive": "60s"}
    server.ask("/api/generate", prompt="one", **body)
    (before,), runners = server.ask("/api/ps")["models"], server.runners()
    under_test = probe(server, session)
    for _ in range(3):
        assert (await under_test.check()).verdict.ok
    (after,) = server.ask("/api/ps")["models"]
    assert server.runners() == runners
    assert after["context_length"] == 2048
    moved = datetime.fromisoformat(after["expires_at"]) - datetime.fromisoformat(before["expires_at"])
    assert abs(moved.total_seconds()) < 5


@pytest.mark.parametrize("model", ["smollm2:135m", "all-minilm:latest"])
async def test_probe_takes_empty_answers_for_failures_and_200_for_nothing(server, session, model: str):
    server.ask("/api/embed" if "minilm" in model else "/api/generate", model=model, prompt="one", input="one")
    server.tell(empty=True)
    under_test = probe(server, session)
    assert not (await under_test.check()).verdict.ok
    server.tell()
    assert (await under_test.check()).verdict.ok


async def test_probe_tells_busy_from_hung_by_whether_a_runner_works(server, session):
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.tell(hang="tokens", busy=True)
    under_test = probe(server, session)
    check = await under_test.check()
    assert (check.verdict.ok, check.verdict.busy) == (True, True)
    server.tell(hang="tokens")
    check = await under_test.check()
    assert not check.verdict.ok
    assert "no token within" in check.verdict.detail
    server.tell()
    assert (await under_test.check()).verdict.ok


async def test_three_bad_answers_in_a_row_mean_down_and_a_probe_now_calls_for_a_pass(server, session, home):
    called: list[str] = []
    environment = {
        "VESTAL_HOME": str(home),
        "OLLAMA_BASE_URL": server.section.base_url,
        "VESTAL_OLLAMA__PROBE_INTERVAL_S": "0.001",
    }
    config = load(environment, cwd=home)
    under_test = OllamaService(config, session, MemoryStateStore(), lambda event: None, called.append)
    assert await under_test.probe_now("the GPU was reset")
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.tell(empty=True)
    scenes = [await under_test.check() for _ in range(3)]
    assert [(scene.failures, scene.down) for scene in scenes] == [(1, False), (2, False), (3, True)]
    assert not await under_test.probe_now("the GPU was reset")
    assert "the GPU was reset" in called[0]
    under_test.woke(60.0)
    assert (await under_test.check()).failures == 1, "what failed before the sleep does not count"
    server.tell()
    assert not (await under_test.check()).down


async def test_check_whose_question_is_forgotten_meanwhile_ends_without_a_verdict(session, free_port):
    """A restart by hand forgets it; whoever waits for the check must not be cancelled with it."""
    asked, port = asyncio.Event(), free_port()

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.5", "models": [{"name": "smollm2:135m", "size": 1}]})

    async def never(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.add_routes([web.get(f"/api/{name}", listed) for name in ("version", "tags", "ps")])
    app.add_routes([web.post("/api/generate", never)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    under_test = Probe(
        OllamaSection(base_url=f"http://127.0.0.1:{port}"), session, lambda: (), token_within_s=30
    )
    checking = asyncio.create_task(under_test.check())
    await asyncio.wait_for(asked.wait(), 10)
    under_test.forget()
    assert (await asyncio.wait_for(checking, 10)).verdict.ok
    await runner.cleanup()
