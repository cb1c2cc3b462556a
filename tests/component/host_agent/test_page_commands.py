"""GET /doctor, GET /clients and the button that kills the engine, with real processes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from host_agent.listener.commands import routes
from host_agent.listener.commands.json_command import JsonCommand
from host_agent.listener.commands.routes import CommandRoutes
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.service_control import ServiceControl
from host_agent.services.service_status import ServiceStatus
from tests.component.host_agent.page_listener import page_listener
from vestal.supervision import State, Supervisor
from vestal.web.http_error import HttpError

WITHIN_S = 60.0
MODELS = [
    {"name": "small:1", "size": 5, "details": {"context_length": 8192}, "capabilities": ["completion"]},
    {
        "name": "agent:1",
        "size": 9,
        "details": {"context_length": 65536},
        "capabilities": ["completion", "tools"],
    },
]
PRINTS = "import sys, time; time.sleep(0.2); print('a warning'); print(sys.argv[1]); sys.exit(1)"


async def answer(request: web.Request) -> web.StreamResponse:
    return web.json_response({"models": MODELS if request.path == "/api/tags" else []})


@pytest.fixture
async def listening(
    home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SimpleNamespace]:
    monkeypatch.setattr(routes, "CLIENTS_WITHIN_S", WITHIN_S)
    async with page_listener(home, free_port, answer) as running:
        gateway_port = next(iter(running.context.upstreams.ports.values()))
        monkeypatch.setenv("VESTAL_HOME", str(home))
        monkeypatch.setenv("VESTAL_MLX_PORT", str(gateway_port))
        running.gateway_port = gateway_port
        yield running


async def test_clients_route_suggests_the_model_that_works_with_the_most_programs(listening):
    reply = await listening.client.get("/clients")
    body = await reply.json()
    assert body["model"] == "agent:1"
    claude = next(client for client in body["clients"] if client["name"] == "claude")
    assert claude["fits"] and claude["title"] == "Claude Code"
    url = f"http://127.0.0.1:{listening.gateway_port}"
    assert f"ANTHROPIC_BASE_URL={url}" in claude["lines"][0] and claude["lines"][0].startswith("export ")
    assert claude["lines"][1:] == ["claude --model agent:1"]
    assert all(client["lines"] and client["note"] for client in body["clients"])


async def test_clients_route_is_502_with_the_remedy_if_the_gateway_does_not_answer(listening):
    await listening.runner.cleanup()
    reply = await listening.client.get("/clients")
    error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (502, "command_failed")
    assert "`vestal up` starts it" in error["message"]


async def test_doctor_route_returns_an_action_for_a_fault_with_a_known_remedy_and_null_for_other_findings():
    findings = [
        {
            "name": "services",
            "level": "fault",
            "sentence": "x is degraded.",
            "remedy": "`vestal recover --once`",
        },
        {"name": "home", "level": "ok", "sentence": "It can be written.", "remedy": ""},
    ]
    printed = json.dumps({"findings": findings, "healthy": False})
    began = time.monotonic()
    reply = await CommandRoutes((sys.executable, "-c", PRINTS, printed)).doctor(cast(Any, None))
    assert isinstance(reply.body, bytes)
    body = json.loads(reply.body)
    assert [finding["action"] and finding["action"]["path"] for finding in body["findings"]] == [
        "/recover",
        None,
    ]
    assert 0.2 <= body["took_s"] <= time.monotonic() - began + 0.01


async def test_page_command_requested_by_several_clients_at_once_runs_once(tmp_path):
    counts = "import pathlib, sys; open(sys.argv[1], 'a').write('x'); print('{}')"
    command = JsonCommand(sys.executable, "-c", counts, str(tmp_path / "count"), timeout_s=WITHIN_S)
    await asyncio.gather(*(command.result() for _ in range(5)))
    assert (tmp_path / "count").read_text() == "x"
    await command.result()
    assert (tmp_path / "count").read_text() == "xx"


async def test_page_command_that_prints_no_json_raises_an_error_with_its_last_line():
    command = JsonCommand(sys.executable, "-c", "print('vestal: It is broken.')", timeout_s=WITHIN_S)
    with pytest.raises(HttpError, match=r"^It is broken\.$"):
        await command.result()


@pytest.mark.parametrize(
    ("state", "event"),
    [(State.OPEN, "restarted"), (State.FAILED, "restarted"), (State.READY, "start_failed")],
)
async def test_engine_start_route_restarts_the_gateway_only_if_the_engine_failed_or_has_an_open_breaker(
    listening, state: State, event: str
):
    """Earlier, only `vestal recover --reset` could start an engine at once whose breaker was open."""
    done: asyncio.Queue[str] = asyncio.Queue()

    async def engine_status(fresh: bool = False) -> ServiceStatus:
        return ServiceStatus(state)

    async def can_hand_over(gateway: object) -> bool:
        return True

    async def hand_over_child(name: str) -> None:
        done.put_nowait("restarted")

    mlx, nothing = SimpleNamespace(engine_status=engine_status, can_hand_over=can_hand_over), cast(Any, None)
    supervisor = SimpleNamespace(status=lambda: {"mlx_server": None}, hand_over_child=hand_over_child)
    listening.context.service_control = ServiceControl(
        cast(Any, supervisor), nothing, cast(Any, mlx), nothing, ModeDecision(Mode.OFF, ""), listening.journal
    )
    listening.journal.call_with_each(
        lambda entry: done.put_nowait("start_failed") if entry["event"] == "start_failed" else None
    )
    reply = await listening.client.post("/services/mlx_engine/start", json={})
    assert reply.status == 202
    async with asyncio.timeout(WITHIN_S):
        assert await done.get() == event


async def test_kill_route_kills_the_engine_and_records_a_person_as_the_cause(listening):
    sleeps = (sys.executable, "-c", "import time; time.sleep(60)", "mlx_server.engine")
    engine = await asyncio.create_subprocess_exec(*sleeps)
    status = ServiceStatus(State.READY, process_pid=engine.pid)

    async def engine_status(fresh: bool = False) -> ServiceStatus:
        return status

    mlx, nothing = cast(Any, SimpleNamespace(engine_status=engine_status)), cast(Any, None)
    listening.context.service_control = ServiceControl(
        Supervisor([]), nothing, mlx, nothing, ModeDecision(Mode.OFF, ""), listening.journal
    )
    reply = await listening.client.post("/services/mlx_engine/kill", json={})
    assert (reply.status, (await reply.json())["action"]) == (202, "kill")
    assert await engine.wait() == -9
    [entry] = [entry for entry in listening.journal.newest() if entry["event"] == "kill_requested"]
    assert (entry["component"], entry["cause"]) == ("mlx_engine", "by hand")
    assert entry["fields"] == {"pid": engine.pid}
    reply = await listening.client.post("/services/mlx_engine/kill", json={})
    assert (reply.status, (await reply.json())["error"]["code"]) == (409, "not_possible")
    async with listening.client.post("/services/ollama/kill", json={}) as reply:
        assert reply.status == 404
