"""The checks' own probe of a container: Docker calls a hung program healthy for half a minute or more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from host_agent.recovery.apply_remedies import HostRemedies
from host_agent.recovery.checks import CONTAINER_GRACE_S, HostChecks
from host_agent.recovery.issues import find_issues
from host_agent.recovery.remedies import RestartContainer
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import DOCKER, MLX_SERVER, ORCHESTRATOR
from host_agent.services.orchestrator.probe import OrchestratorProbe
from host_agent.services.service_status import ServiceStatus
from vestal.config import load
from vestal.supervision import (
    HealthCheck,
    JsonStateStore,
    ProbePolicy,
    ProbeResult,
    ProcessActivity,
    State,
    SystemClock,
)

UP = ServiceStatus(State.READY, process_pid=7, uptime_s=CONTAINER_GRACE_S + 1, extra={"status": "running"})


class FakeMachine:
    """Stands for the status report, the containers and Ollama; there is one orchestrator.

    While it `computes`, each look shows another second of CPU time.
    """

    def __init__(self, status: ServiceStatus, computes: bool = False) -> None:
        self.status, self.answers, self.computes = status, False, computes
        self.cpu_s = 0.0
        self.fresh: list[bool] = []
        self.restarted: list[tuple[str, int]] = []

    async def service_statuses(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        self.fresh.append(fresh)
        return {
            MLX_SERVER: ServiceStatus(State.READY, process_pid=1),
            DOCKER: ServiceStatus(State.READY),
            ORCHESTRATOR: self.status,
        }

    async def observe(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        return await self.service_statuses(fresh)

    async def orphans(self) -> tuple[()]:
        return ()

    async def orchestrator_answers(self, pid: int) -> ProbeResult:
        return ProbeResult(self.answers, "no answer within 3 s", answered=self.answers)

    async def activity(self, pid: int) -> ProcessActivity:
        self.cpu_s += self.computes
        return ProcessActivity(cpu_s=self.cpu_s, suspended=not self.computes)

    def stopped_by_hand(self, service: str) -> bool:
        return False

    async def restart(self, service: str, by: str, stop_s: int) -> None:
        self.restarted.append((service, stop_s))


def checks(machine: FakeMachine, home: Path, budget: RestartBudget) -> HostChecks:
    config = load({"VESTAL_HOME": str(home)})
    store = JsonStateStore(home / "state.json")
    supervisor, fake = cast(Any, SimpleNamespace()), cast(Any, machine)
    policy = ProbePolicy(interval_s=0.01, failures=2)
    orchestrator = HealthCheck(machine.orchestrator_answers, machine.activity, policy, SystemClock())
    return HostChecks(config, supervisor, (), fake, fake, store, orchestrator, fake, budget)


async def test_hung_container_is_restarted_five_times_an_hour_at_most(home: Path):
    machine = FakeMachine(UP)
    budget, fake = RestartBudget(), cast(Any, machine)
    under_test, remedies = checks(machine, home, budget), HostRemedies(fake, fake, fake, budget, stop_s=1)
    for _ in range(5):
        (issue,) = find_issues(await under_test.gather())
        assert issue.remedy == RestartContainer(ORCHESTRATOR, hung=True)
        assert "does not answer: no answer for 0 s: it is suspended" in issue.found
        await remedies.apply(issue.remedy)
    (issue,) = find_issues(await under_test.gather())
    assert issue.remedy is None
    assert "too often" in issue.advice
    assert machine.restarted == [(ORCHESTRATOR, 3)] * 5
    assert all(machine.fresh), "a pass judges from what it sees now"


@pytest.mark.parametrize(
    "status",
    [
        ServiceStatus(
            State.READY, process_pid=7, uptime_s=CONTAINER_GRACE_S - 1, extra={"status": "running"}
        ),
        ServiceStatus(State.STARTING, process_pid=7, uptime_s=99, extra={"status": "running"}),
    ],
)
async def test_container_within_its_start_time_is_not_probed(home: Path, status: ServiceStatus):
    facts = await checks(FakeMachine(status), home, RestartBudget()).gather()
    assert next(s for s in facts.services if s.name == ORCHESTRATOR).answers is None


async def test_container_that_answers_its_probe_has_no_issue(home: Path):
    machine = FakeMachine(UP)
    machine.answers = True
    facts = await checks(machine, home, RestartBudget()).gather()
    assert find_issues(facts) == ()
    assert facts.healthy


@pytest.mark.parametrize("status", [UP, replace(UP, state=State.DEGRADED, detail="unhealthy: timed out")])
async def test_silent_container_that_uses_cpu_is_not_restarted(home: Path, status: ServiceStatus):
    """Docker's own health check gets no answer either, and so calls the container unhealthy."""
    facts = await checks(FakeMachine(status, computes=True), home, RestartBudget()).gather()
    assert all(issue.remedy is None and "it works" in issue.advice for issue in find_issues(facts))
    assert next(s for s in facts.services if s.name == ORCHESTRATOR).answers is None


async def test_orchestrator_probe_reports_no_answer_from_a_closed_port_and_from_a_silent_server(
    free_port: Callable[[], int],
):
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
        refused = await probe.answers(0)
        assert (refused.answered, refused.detail.partition(": ")[2]) == (False, "nothing listens there")
        await web.TCPSite(runner, "127.0.0.1", port).start()
        assert not (await probe.answers(0)).answered
    await runner.cleanup()
