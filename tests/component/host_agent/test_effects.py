"""What a pass asks for itself: Docker calls a wedged orchestrator healthy for half a minute and more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from host_agent.recovery.effects import CONTAINER_GRACE_S, HostEffects
from host_agent.recovery.facts import RestartContainer
from host_agent.recovery.plan import plan
from host_agent.services import DOCKER, MLX_SERVER, ORCHESTRATOR
from host_agent.services.orchestrator.probe import OrchestratorProbe
from host_agent.services.service_status import ServiceStatus
from vestal.config import load
from vestal.supervision import JsonStateStore, State

UP = ServiceStatus(State.READY, process_pid=7, uptime_s=CONTAINER_GRACE_S + 1, extra={"status": "running"})


class World:
    """Stands for table and containers: one orchestrator, and what it was asked to do."""

    def __init__(self, row: ServiceStatus) -> None:
        self.row, self.answers = row, False
        self.fresh: list[bool] = []
        self.restarted: list[tuple[str, int]] = []

    async def rows(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        self.fresh.append(fresh)
        return {
            MLX_SERVER: ServiceStatus(State.READY, process_pid=1),
            DOCKER: ServiceStatus(State.READY),
            ORCHESTRATOR: self.row,
        }

    async def orphans(self) -> tuple[()]:
        return ()

    async def orchestrator_answers(self) -> bool:
        return self.answers

    def stopped_by_hand(self, service: str) -> bool:
        return False

    async def restart(self, service: str, by: str, stop_s: int) -> None:
        self.restarted.append((service, stop_s))


def hands(world: World, home: Path) -> HostEffects:
    config = load({"VESTAL_HOME": str(home)})
    store, nothing = JsonStateStore(home / "state.json"), SimpleNamespace()
    parts: Any = (config, nothing, (), world, world, store, world.orchestrator_answers, world)
    return HostEffects(*parts)


async def test_container_that_runs_and_does_not_answer_is_restarted_a_bounded_number_of_times(home: Path):
    world = World(UP)
    under_test = hands(world, home)
    for _ in range(5):
        (issue,) = plan(await under_test.gather())
        assert issue.remedy == RestartContainer(ORCHESTRATOR, hung=True)
        await under_test.apply(issue.remedy)
    (issue,) = plan(await under_test.gather())
    assert issue.remedy is None
    assert "too often" in issue.left
    assert world.restarted == [(ORCHESTRATOR, 3)] * 5
    assert all(world.fresh), "a pass judges from what it sees now"


@pytest.mark.parametrize(
    "row",
    [
        ServiceStatus(
            State.READY, process_pid=7, uptime_s=CONTAINER_GRACE_S - 1, extra={"status": "running"}
        ),
        ServiceStatus(State.STARTING, process_pid=7, uptime_s=99, extra={"status": "running"}),
    ],
)
async def test_container_that_may_still_be_coming_up_is_not_asked(home: Path, row: ServiceStatus):
    facts = await hands(World(row), home).gather()
    assert next(s for s in facts.services if s.name == ORCHESTRATOR).answers is None


async def test_container_that_answers_is_left_alone(home: Path):
    world = World(UP)
    world.answers = True
    facts = await hands(world, home).gather()
    assert plan(facts) == ()
    assert facts.healthy


async def test_probe_has_no_answer_from_what_accepts_and_says_nothing(free_port: Callable[[], int]):
    port = free_port()

    async def silent(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/health", silent)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    async with aiohttp.ClientSession() as session:
        probe = OrchestratorProbe(session, port, timeout_s=0.2)
        assert not await probe.answers(), "nobody listens"
        await web.TCPSite(runner, "127.0.0.1", port).start()
        assert not await probe.answers()
    await runner.cleanup()
