"""The state of each service and its detail: both come from the same look, and agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from host_agent.errors import DockerUnavailable
from host_agent.services import (
    AGENT,
    DOCKER,
    IN_CONTAINERS,
    MLX_ENGINE,
    MLX_SERVER,
    NIGHTLY,
    OLLAMA,
    ORCHESTRATOR,
)
from host_agent.services.docker import container_status
from host_agent.services.docker.docker_engine import DockerEngineMonitor
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.service_status import ServiceStatus
from host_agent.services.status_report import StatusReport
from vestal.supervision import DOWN, UP, ChildStatus, MemoryStateStore, SleepDetector, State

NONE_FOUND = "No Docker engine was found on this machine."
DECIDED_WITHOUT = ModeDecision(Mode.NATIVE, NONE_FOUND.rstrip("."))
IN_DOCKER = ModeDecision(Mode.DOCKER, "Docker engine 27.1 answers")
OFF = ModeDecision(Mode.OFF, "orchestrator.mode is off")
READY_ENGINE = ServiceStatus(State.READY, process_pid=8)


class FakeMachine:
    """Stands for everything that the status report asks."""

    restarter = "watchdog"
    port = 11435

    def __init__(
        self,
        *,
        children: Mapping[str, ChildStatus] | None = None,
        engine: ServiceStatus | None = READY_ENGINE,
        docker_version: str = "",
        mistake: str = "",
        containers: Mapping[str, ServiceStatus] | None = None,
    ) -> None:
        self.children = {name: ChildStatus(State.READY, 7) for name in (MLX_SERVER, *IN_CONTAINERS)}
        self.children |= children or {}
        self.engine, self.docker_version, self.mistake = engine, docker_version, mistake
        self.containers = containers or {}

    def predecessors(self, name: str) -> list[int]:
        return []

    def describe(self) -> str:
        return "its watchdog (PID 9) restarts it when it fails"

    def status(self) -> dict[str, ChildStatus]:
        return dict(self.children)

    async def engine_status(self, fresh: bool = False) -> ServiceStatus | None:
        return self.engine

    async def service_status(self, fresh: bool = False) -> ServiceStatus:
        return ServiceStatus(State.ABSENT, detail="switched off (ollama.manage)", expected=False)

    async def service_statuses(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        return dict(self.containers)

    async def version(self) -> str:
        if not self.docker_version:
            raise DockerUnavailable(NONE_FOUND)
        return self.docker_version

    async def find_mistake(self) -> str:
        return self.mistake


def report(machine: FakeMachine, decision: ModeDecision) -> StatusReport:
    fake = cast(Any, machine)
    docker = DockerEngineMonitor(fake, "vestal", decision)
    return StatusReport(
        fake, fake, fake, fake, docker, fake, decision, MemoryStateStore(), SleepDetector(), fake, fake
    )


async def row(service: str, decision: ModeDecision = DECIDED_WITHOUT, **machine: Any) -> ServiceStatus:
    return (await report(FakeMachine(**machine), decision).service_statuses())[service]


@pytest.mark.parametrize(
    ("decision", "version", "state", "words"),
    [
        (IN_DOCKER, "27.1", State.READY, "^$"),
        (IN_DOCKER, "", State.STOPPED, "No Docker engine was found.*systemctl start docker"),
        # An engine that came up after the agent was `ready` beside "No Docker engine was found".
        (DECIDED_WITHOUT, "27.1", State.READY, "^it answers and is not needed: .*when the agent started"),
        (DECIDED_WITHOUT, "", State.ABSENT, "^No Docker engine was found.* runs natively"),
        (OFF, "27.1", State.READY, "^it answers and is not needed: the orchestrator is switched off"),
        (OFF, "", State.ABSENT, "^No Docker engine was found.* switched off"),
    ],
)
async def test_docker_status_has_the_result_of_the_last_check(decision, version, state, words):
    shown = await row(DOCKER, decision, docker_version=version, containers=_containers("running"))
    assert shown.state is state
    assert re.search(words, shown.detail), shown.detail
    assert shown.expected == (decision is IN_DOCKER)


@pytest.mark.parametrize("service", [MLX_SERVER, ORCHESTRATOR, NIGHTLY])
@pytest.mark.parametrize("state", sorted(State))
async def test_child_status_has_the_state_and_detail_of_its_supervisor(service: str, state: State):
    words = f"the words of {state}"
    shown = await row(service, children={service: ChildStatus(state, 7, detail=words)})
    assert (shown.state, shown.detail) == (state, words)


@pytest.mark.parametrize("gateway", sorted(State))
@pytest.mark.parametrize("reported", [None, *sorted(UP | {State.OPEN, State.STOPPED})])
async def test_engine_status_agrees_with_its_gateway(gateway: State, reported: State | None):
    engine = None if reported is None else ServiceStatus(reported, process_pid=8, detail=f"is {reported}")
    shown = await row(MLX_ENGINE, children={MLX_SERVER: ChildStatus(gateway, 7)}, engine=engine)
    if gateway in DOWN:
        assert (shown.state, shown.detail) == (State.STOPPED, f"its gateway is {gateway}")
    elif gateway is State.STARTING and reported in (None, State.STOPPED):
        assert (shown.state, shown.detail) == (State.STARTING, "its gateway is starting")
    elif reported is None:
        assert (shown.state, shown.detail) == (State.STOPPED, "its gateway does not answer")
    else:
        assert (shown.state, shown.detail) == (reported, f"is {reported}")


async def test_engine_status_behind_a_busy_gateway_is_the_last_report():
    """While one body of 30 MB was parsed, the engine was shown as stopped."""
    machine = FakeMachine(children={MLX_SERVER: ChildStatus(State.BUSY, 7)})
    asked = report(machine, OFF)
    assert (await asked.service_statuses())[MLX_ENGINE] == READY_ENGINE
    machine.engine = None
    shown = (await asked.service_statuses())[MLX_ENGINE]
    assert (shown.state, shown.process_pid) == (State.READY, 8)
    assert "last reported" in shown.detail
    machine.children[MLX_SERVER] = ChildStatus(State.BUSY, 99)
    assert (await asked.service_statuses())[MLX_ENGINE].state is State.STOPPED, (
        "another gateway, another engine"
    )


@pytest.mark.parametrize(
    ("status", "health", "state", "words"),
    [
        ("running", "", State.READY, "^$"),
        ("running", "healthy", State.READY, "^$"),
        ("running", "starting", State.STARTING, "running"),
        ("running", "unhealthy", State.DEGRADED, "unhealthy"),
        ("paused", "", State.DEGRADED, "paused"),
        ("restarting", "", State.BACKOFF, "restarting"),
        ("removing", "", State.STOPPING, "removing"),
        ("created", "", State.STOPPED, "created"),
        ("exited", "", State.STOPPED, "exited"),
        ("dead", "", State.FAILED, "dead"),
    ],
)
def test_container_status_has_the_detail_of_its_state(status: str, health: str, state: State, words: str):
    shown = _container(status, health)
    assert shown.state is state
    assert re.search(words, shown.detail), shown.detail


@pytest.mark.parametrize("service", IN_CONTAINERS)
async def test_orchestrator_status_without_an_orchestrator_is_absent_with_the_reason(service: str):
    shown = await row(service, OFF)
    assert (shown.state, shown.expected, shown.healthy) == (State.ABSENT, False, True)
    assert "switched off" in shown.detail


MISTAKE = "agents.yaml:7: agents.reader.promt is an unknown key; there are: prompt, role."


@pytest.mark.parametrize("decision", [DECIDED_WITHOUT, IN_DOCKER])
@pytest.mark.parametrize("state", [State.FAILED, State.BACKOFF, State.STOPPED])
async def test_orchestrator_status_names_the_mistake_in_the_agents_file(decision: ModeDecision, state: State):
    broken = ServiceStatus(state, detail="exit code 78")
    shown = await row(
        ORCHESTRATOR,
        decision,
        children={ORCHESTRATOR: ChildStatus(state, detail="exit code 78")},
        containers={ORCHESTRATOR: broken, NIGHTLY: broken},
        mistake=MISTAKE,
    )
    assert (shown.state, shown.detail) == (state, MISTAKE)


async def test_orchestrator_status_while_healthy_omits_a_mistake_in_a_changed_agents_file():
    assert (await row(ORCHESTRATOR, mistake=MISTAKE)).detail == ""


async def test_agent_status_says_what_restarts_it():
    shown = await row(AGENT)
    assert (shown.state, shown.detail) == (State.READY, FakeMachine().describe())
    assert shown.extra["kept_by"] == "watchdog"


async def test_status_has_every_service_in_every_mode():
    for decision in (DECIDED_WITHOUT, IN_DOCKER, OFF):
        machine = FakeMachine(containers=_containers("running"))
        statuses = await report(machine, decision).service_statuses()
        assert list(statuses) == [AGENT, MLX_SERVER, MLX_ENGINE, OLLAMA, DOCKER, ORCHESTRATOR, NIGHTLY]


def _container(status: str, health: str = "") -> ServiceStatus:
    log = [{"Output": "no answer"}]
    state = {
        "Status": status,
        "Running": status in ("running", "paused"),
        "Health": {"Status": health, "Log": log},
    }
    return container_status.service_status({"Id": "1", "State": state}, now=0.0)


def _containers(status: str) -> dict[str, ServiceStatus]:
    return {name: _container(status) for name in IN_CONTAINERS}
