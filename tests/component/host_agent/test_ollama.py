"""Ollama, watched: absent is no fault, silent is one, and an answer must mean something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from host_agent.config.model import OllamaSection
from host_agent.services import ollama
from host_agent.services.ollama import OllamaService
from supervision import State


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


def service(port: int, session: aiohttp.ClientSession) -> OllamaService:
    return OllamaService(OllamaSection(base_url=f"http://127.0.0.1:{port}"), session)


@pytest.mark.parametrize(
    ("tags", "status", "state", "words"),
    [
        ({"models": [{"name": "a"}]}, 200, State.READY, ""),
        ({"models": []}, 200, State.READY, "no models"),
        ({"models": None}, 200, State.DEGRADED, "restart Ollama"),
        ({"error": "reentrancy"}, 500, State.DEGRADED, "500"),
    ],
)
async def test_answer_decides_the_state(
    session, free_port: Callable[[], int], tags: object, status: int, state: State, words: str
):
    port = free_port()
    runner = await answering(port, tags, status)
    row = await service(port, session).row()
    await runner.cleanup()
    assert row.state is state
    assert words in row.detail


async def test_silence_where_it_is_installed_is_a_fault_with_the_remedy(session, free_port, monkeypatch):
    monkeypatch.setattr(ollama, "installed", lambda: True)
    row = await service(free_port(), session).row()
    assert row.state is State.STOPPED
    assert "ollama serve" in row.detail
    assert not row.well


async def test_silence_where_it_is_not_installed_is_no_fault(session, free_port, monkeypatch):
    monkeypatch.setattr(ollama, "installed", lambda: False)
    row = await service(free_port(), session).row()
    assert row.state is State.ABSENT
    assert row.well


async def test_switched_off_it_is_not_asked(session, free_port):
    port = free_port()
    runner = await answering(port, {"models": []})
    settings = OllamaSection(base_url=f"http://127.0.0.1:{port}", manage="off")
    row = await OllamaService(settings, session).row()
    await runner.cleanup()
    assert (row.state, row.expected) == (State.ABSENT, False)
