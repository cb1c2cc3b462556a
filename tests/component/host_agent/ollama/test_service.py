"""The status of Ollama, from what its server answers and from what is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from host_agent.services.ollama import OllamaService, installation
from tests.children import stand_in_ollama
from vestal.config import load
from vestal.supervision import MemoryStateStore, State


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


def service(
    home: Path,
    port: int,
    session: aiohttp.ClientSession,
    manage: str = "auto",
    request_pass: Callable[[str], object] = lambda reason: None,
) -> OllamaService:
    environment = {
        "VESTAL_HOME": str(home),
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{port}",
        "VESTAL_OLLAMA__MANAGE": manage,
    }
    config = load(environment, cwd=home)
    return OllamaService(config, session, MemoryStateStore(), lambda event: None, request_pass)


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
async def test_ollama_status_is_ready_if_api_tags_answers_with_a_model_list_and_otherwise_degraded(
    session, bare, home, free_port: Callable[[], int], tags: object, status: int, state: State, words: str
):
    port = free_port()
    runner = await answering(port, tags, status)
    found = await service(home, port, session).service_status()
    await runner.cleanup()
    assert found.state is state
    assert words in found.detail


async def test_installed_ollama_that_does_not_answer_has_status_stopped_and_a_remedy(
    session, bare, home, free_port
):
    stand_in_ollama.install(bare)
    for manage, remedy in (("auto", "recovery pass starts it"), ("watch", "`ollama serve`")):
        found = await service(home, free_port(), session, manage).service_status()
        assert found.state is State.STOPPED
        assert remedy in found.detail
        assert not found.healthy


@pytest.mark.skipif(installation.installed(), reason="Ollama is installed here, in one of its usual places")
@pytest.mark.parametrize(("manage", "state"), [("auto", State.ABSENT), ("always", State.STOPPED)])
async def test_ollama_status_if_not_installed_is_unhealthy_only_if_ollama_is_required(
    session, bare, home, free_port, manage: str, state: State
):
    found = await service(home, free_port(), session, manage).service_status(fresh=True)
    assert found.state is state
    assert found.healthy == (state is State.ABSENT)
    assert "not installed" in found.detail


async def test_ollama_switched_off_in_the_settings_has_status_absent_even_if_a_server_answers(
    session, home, free_port
):
    port = free_port()
    runner = await answering(port, {"models": []})
    found = await service(home, port, session, "off").service_status(fresh=True)
    await runner.cleanup()
    assert (found.state, found.expected) == (State.ABSENT, False)


async def test_ollama_status_is_absent_if_the_mlx_server_uses_ollamas_port(session, home):
    under_test = service(home, 11435, session)
    found = await under_test.service_status()
    assert (found.state, found.expected) == (State.ABSENT, False)
    assert "stands in" in under_test.refusal("start")


@pytest.mark.parametrize("checked_before", [True, False])
async def test_watch_of_a_broken_ollama_requests_one_recovery_pass_for_each_outage_even_after_a_dry_run(
    session, bare, home, free_port, checked_before: bool
):
    """A dry run once counted the first three failures, and the watch then never requested a pass."""
    port, requested = free_port(), list[str]()
    under_test = service(home, port, session, request_pass=requested.append)

    async def watch(times: int) -> int:
        for _ in range(times):
            await under_test.watch_once()
        return len(requested)

    runner = await answering(port, {"error": "reentrancy"}, 500)
    if checked_before:
        await under_test.service_status(fresh=True)  # as a dry run does
    assert await watch(5) == 1
    assert "Ollama is down: " in requested[0]
    under_test.forget_failures()  # as a remedy does
    assert await watch(5) == 2
    await runner.cleanup()
    runner = await answering(port, {"models": [{"name": "a"}]})
    await under_test.service_status(fresh=True)
    await runner.cleanup()
    runner = await answering(port, {"error": "reentrancy"}, 500)
    assert await watch(5) == 3
    await runner.cleanup()
