"""The checks' own probe of a container: Docker calls a hung program healthy for half a minute or more."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.recovery.apply_remedies import HostRemedies
from host_agent.recovery.checks import CONTAINER_GRACE_S, HostChecks
from host_agent.recovery.facts import Facts
from host_agent.recovery.issues import find_issues
from host_agent.recovery.passes import LatestCheck
from host_agent.recovery.remedies import RestartContainer, TerminateOldServer
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import DOCKER, MLX_ENGINE, MLX_SERVER, ORCHESTRATOR
from host_agent.services.orchestrator.probe import OrchestratorProbe
from host_agent.services.service_status import ServiceStatus
from host_agent.watchdog.child import AgentRestarter, AgentWatchdog
from vestal.config import load
from vestal.supervision import (
    ChildSpec,
    ChildStatus,
    HealthCheck,
    JsonStateStore,
    ProbePolicy,
    ProbeResult,
    ProcessActivity,
    State,
    SystemClock,
    write_pid_file,
)
from vestal.supervision.processes.identity import identify

NO_ANSWER = "The Docker engine gave no answer within 5 s."
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
        self.engine: ServiceStatus | None = None
        self.worker_statuses: list[ServiceStatus] = []
        self.docker_hangs = False

    async def service_statuses(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        self.fresh.append(fresh)
        return {
            MLX_SERVER: ServiceStatus(State.READY, process_pid=1),
            DOCKER: ServiceStatus(State.READY),
            ORCHESTRATOR: self.status,
        } | ({MLX_ENGINE: self.engine} if self.engine else {})

    async def observe(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        self.fail_if_docker_hangs()
        return await self.service_statuses(fresh)

    def fail_if_docker_hangs(self) -> None:
        if self.docker_hangs:
            raise DockerUnavailable(NO_ANSWER)

    async def orphans(self) -> tuple[()]:
        return ()

    async def orchestrator_answers(self, pid: int) -> ProbeResult:
        return ProbeResult(self.answers, "no answer within 3 s", answered=self.answers)

    async def activity(self, pid: int) -> ProcessActivity:
        self.cpu_s += self.computes
        return ProcessActivity(cpu_s=self.cpu_s, suspended=not self.computes)

    def stopped_by_hand(self, service: str) -> bool:
        return False

    async def workers(self) -> list[ServiceStatus]:
        self.fail_if_docker_hangs()
        return self.worker_statuses

    async def restart(self, service: str, by: str, stop_s: int, container: str) -> None:
        self.restarted.append((service, stop_s))


def checks(
    machine: FakeMachine,
    home: Path,
    budget: RestartBudget,
    is_replacing_gateway: Callable[[], bool] = lambda: False,
) -> HostChecks:
    config = load({"VESTAL_HOME": str(home)})
    store = JsonStateStore(home / "state.json")
    supervisor, fake = cast(Any, SimpleNamespace()), cast(Any, machine)
    policy = ProbePolicy(interval_s=0.01, failures=2)
    orchestrator = HealthCheck(machine.orchestrator_answers, machine.activity, policy, SystemClock())
    ours: tuple[ChildSpec, ...] = ()
    return HostChecks(
        config, supervisor, ours, fake, fake, store, orchestrator, fake, budget, is_replacing_gateway
    )


@pytest.mark.parametrize("state", [State.OPEN, State.FAILED])
@pytest.mark.parametrize("is_replacing", [True, False])
async def test_engine_given_up_counts_as_starting_while_its_gateway_is_replaced(
    home: Path, state: State, is_replacing: bool
):
    """`vestal recover --reset` reported the engine as given up, because its pass judged the old gateway."""
    machine = FakeMachine(replace(UP, uptime_s=0.0))
    machine.engine = ServiceStatus(state, detail="5 restarts within 300 s")
    facts = await checks(machine, home, RestartBudget(), lambda: is_replacing).gather()
    [issue] = find_issues(facts)
    assert (issue.service, issue.resolves_itself) == (MLX_ENGINE, is_replacing)


async def test_hung_container_is_restarted_five_times_an_hour_at_most(home: Path):
    machine = FakeMachine(UP)
    budget, fake = RestartBudget(), cast(Any, machine)
    under_test, remedies = checks(machine, home, budget), HostRemedies(fake, fake, fake, budget, stop_s=1)
    for _ in range(5):
        (issue,) = find_issues(await under_test.gather())
        assert issue.remedy == RestartContainer(ORCHESTRATOR, hung=True)
        assert re.search(r"does not answer: no answer for \d+ s: it is suspended", issue.found)
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
        refused = await OrchestratorProbe(session, port, timeout_s=60.0).answers(0)
        assert (refused.answered, refused.detail.partition(": ")[2]) == (False, "nothing listens there")
        await web.TCPSite(runner, "127.0.0.1", port).start()
        assert not (await OrchestratorProbe(session, port, timeout_s=0.2).answers(0)).answered
    await runner.cleanup()


async def test_worker_that_was_killed_makes_the_machine_unhealthy_and_is_restarted(home: Path):
    machine = FakeMachine(UP)
    machine.answers = True
    ended = ServiceStatus(State.STOPPED, detail="its container has ended", extra={"container": "bb"})
    machine.worker_statuses = [replace(UP, extra={"container": "aa"}), ended]
    facts = await checks(machine, home, RestartBudget()).gather()
    assert not facts.healthy
    [issue] = find_issues(facts)
    assert (issue.service, issue.found) == ("worker", "its container has ended (container bb)")
    assert issue.remedy == RestartContainer("worker", container="bb")


async def test_each_worker_container_is_restarted_five_times_an_hour_at_most(home: Path):
    """The workers once shared one limit: the restarts of some left another one down for up to an hour."""
    machine = FakeMachine(UP)
    machine.answers = True
    ended = [ServiceStatus(State.STOPPED, extra={"container": f"{number:012}"}) for number in range(8)]
    budget, fake = RestartBudget(), cast(Any, machine)
    under_test, remedies = checks(machine, home, budget), HostRemedies(fake, fake, fake, budget, stop_s=1)
    machine.worker_statuses = ended[:7]
    for _ in range(5):
        for issue in find_issues(await under_test.gather()):
            assert issue.remedy
            await remedies.apply(issue.remedy)
    machine.worker_statuses = ended
    *others, eighth = find_issues(await under_test.gather())
    assert [issue.remedy for issue in others] == [None] * 7
    assert eighth.remedy == RestartContainer("worker", container=f"{7:012}")


@pytest.mark.parametrize("orchestrator_answers", [True, False])
async def test_docker_that_hangs_after_its_first_listing_counts_as_unhealthy_and_its_workers_as_unknown(
    home: Path, orchestrator_answers: bool
):
    """A failed listing of the workers once ended their open faults: "no worker is left". A hung orchestrator
    counted as healthy.
    """
    machine, journal = FakeMachine(UP), Journal(home / "journal.db")
    machine.answers, machine.docker_hangs = orchestrator_answers, True
    latest = LatestCheck(checks(machine, home, RestartBudget()), journal)
    facts = await latest.gather()
    assert (facts.healthy, facts.docker_answers, latest.fields["absent"]) == (False, False, [])
    advice = {issue.service: (issue.remedy, issue.advice) for issue in find_issues(facts)}
    assert advice.pop(DOCKER) == (None, NO_ANSWER)
    waits = {ORCHESTRATOR: (None, "waits for the Docker engine")}
    assert advice == ({} if orchestrator_answers else waits)
    journal.close()


def old_servers(home: Path, port: int, **supervised: int) -> list[str]:
    """Return the remedies of a pass over a machine whose gateway has no process and whose agent supervises
    processes with the PIDs `supervised`, by name.
    """
    machine = FakeMachine(UP)
    under_test = checks(machine, home, RestartBudget())
    under_test._config = load({"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port)})
    children = {name: ChildStatus(State.READY, pid) for name, pid in supervised.items()}
    children[MLX_SERVER] = ChildStatus(State.BACKOFF)
    fake: Any = SimpleNamespace(status=lambda: children, predecessors=lambda service: [])
    under_test._supervisor = fake
    ports = under_test._foreign_ports({MLX_SERVER: ServiceStatus(State.BACKOFF)})
    return [str(issue.remedy) for issue in find_issues(Facts((), tuple(ports)))]


async def test_watchdog_that_keeps_the_sockets_of_a_gateway_between_two_processes_is_no_old_server(
    home: Path,
):
    """A recovery pass during a gateway's backoff once ended the watchdog, and the agent started no other."""
    config = load({"VESTAL_HOME": str(home)})
    config.home.prepare()
    this_process = identify(os.getpid())
    assert this_process
    write_pid_file(config.home.run / "agent.json", this_process)  # else it starts a real agent
    watchdog = AgentWatchdog(config, AgentRestarter.WATCHDOG, "systemd", on_event=lambda event: None)
    await watchdog.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with asyncio.timeout(60):
                while watchdog._kept is None:  # the watchdog listens a moment after its start
                    await watchdog.keep_sockets([listening])
                    await asyncio.sleep(0.02)
            assert old_servers(home, listening.getsockname()[1]) == []
    finally:
        await watchdog.stop()


def test_gateway_of_an_earlier_agent_that_holds_the_port_is_an_old_server_but_a_supervised_one_is_not(
    home: Path,
):
    """A stand-in with the gateway's name and home holds the port."""
    package = home / "mlx_server"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "gateway.py").write_text("import sys\nprint(flush=True)\nsys.stdin.read()\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, kept = listening.getsockname()[1], listening.fileno()
        gateway = subprocess.Popen(
            [sys.executable, "-m", "mlx_server.gateway"],
            cwd=home,
            env=os.environ | {"VESTAL_HOME": str(home)},
            pass_fds=[kept],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    with gateway:
        assert gateway.stdout and gateway.stdout.readline()
        assert old_servers(home, port) == [str(TerminateOldServer(MLX_SERVER, gateway.pid))]
        assert old_servers(home, port, orchestrator=gateway.pid) == []
        gateway.communicate()
