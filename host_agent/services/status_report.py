"""Report the status of every service and of the machine."""

import asyncio
import os
import time
from dataclasses import replace
from typing import Any, Protocol

import psutil

from host_agent.journal import readable_cause
from host_agent.services import (
    AGENT,
    DOCKER,
    IN_CONTAINERS,
    MLX_ENGINE,
    MLX_SERVER,
    NAMES,
    OLLAMA,
    ORCHESTRATOR,
    retry_advice,
)
from host_agent.services.disk_report import DiskReport
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.docker_engine import DockerEngineMonitor
from host_agent.services.mlx.service import MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator.agents_file import AgentsFileCheck
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.retry_advice import RetryAdvice
from host_agent.services.service_status import ServiceStatus
from vestal.platform import memory, model_servers
from vestal.supervision import DOWN, UP, ChildStatus, SleepDetector, State, StateStore, Supervisor

STOPPED = ServiceStatus(State.STOPPED)
STOPPED_BY_HAND = "stopped by hand"


class RestarterStatus(Protocol):
    """Reports what starts the agent again when it has died."""

    restarter: str

    def describe(self) -> str:
        """Return in words what restarts the agent when it fails."""


class StatusReport:
    """Asks every service for its status. It changes nothing."""

    def __init__(
        self,
        watchdog: RestarterStatus,
        supervisor: Supervisor,
        mlx: MlxService,
        ollama: OllamaService,
        docker_engine: DockerEngineMonitor,
        containers: Containers,
        decision: ModeDecision,
        store: StateStore,
        sleep: SleepDetector,
        disk: DiskReport,
        agents_file: AgentsFileCheck,
    ) -> None:
        self._watchdog, self._supervisor, self._mlx, self._ollama = watchdog, supervisor, mlx, ollama
        self._docker_engine, self._containers, self._decision = docker_engine, containers, decision
        self._store, self._sleep, self._disk, self._agents_file = store, sleep, disk, agents_file
        self._started_at = time.monotonic()
        self._last_engine: tuple[int | None, ServiceStatus] = (None, STOPPED)  # and the gateway's PID

    async def service_statuses(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        """Return the status of every service by name, in the order of NAMES.

        With `fresh`, for callers that act on the answer, nothing comes from a cache.
        """
        engine, ollama, docker, orchestrators = await asyncio.gather(
            self._mlx_engine(fresh),
            self._ollama.service_status(fresh),
            self._docker_engine.service_status(),
            self._orchestrators(fresh),
        )
        statuses = {
            AGENT: self._agent(),
            MLX_SERVER: self._gateway(),
            MLX_ENGINE: engine,
            OLLAMA: ollama,
            DOCKER: docker,
            **orchestrators,
        }
        return {name: statuses[name] for name in NAMES}

    async def retry_advice(self) -> dict[str, RetryAdvice]:
        """Return the advice for those of `mlx` and `ollama` that a recovery pass will not start now."""
        engine, ollama = await asyncio.gather(self._mlx_engine(fresh=False), self._ollama.service_status())
        mlx_stopped_by_hand = bool((self._store.load(MLX_SERVER) or {}).get("stopped_by_hand"))
        advice = {
            "mlx": retry_advice.for_mlx(self._child(MLX_SERVER), engine, mlx_stopped_by_hand),
            "ollama": retry_advice.for_service(ollama, self._ollama.controller.stopped_by_hand),
        }
        return {name: reason for name, reason in advice.items() if reason}

    def host(self) -> dict[str, Any]:
        """Return the machine's memory in bytes, how long it has slept since the agent started, and what could
        not be written to its disk.
        """
        now = memory.read()
        return {
            "memory": now.as_json(),
            "wired_fraction": now.wired_fraction,
            "warning": model_servers.current_headroom(now).message,
            "sleep": {"slept_s": round(self._sleep.slept_s, 1)},
            "disk": self._disk.as_json(),
        }

    def _agent(self) -> ServiceStatus:
        uptime_s = time.monotonic() - self._started_at
        rss = psutil.Process().memory_info().rss
        return ServiceStatus(
            State.READY,
            process_pid=os.getpid(),
            uptime_s=uptime_s,
            detail=self._watchdog.describe(),
            extra={"rss_bytes": rss, "kept_by": self._watchdog.restarter},
        )

    def _gateway(self) -> ServiceStatus:
        """Return the gateway's status, which names the older ones that still serve their last clients."""
        older = self._supervisor.predecessors(MLX_SERVER)
        status = self._child(MLX_SERVER, port=self._mlx.port, predecessors=older)
        if not older or status.detail:
            return status
        pids = ", ".join(map(str, older))
        return replace(
            status, detail=f"until their clients have their answers, older ones run too: PID {pids}"
        )

    def _child(self, name: str, **extra: Any) -> ServiceStatus:
        status = ServiceStatus.of_child(self._supervisor.status()[name], **extra)
        by_hand = (self._store.load(name) or {}).get("stopped_by_hand")
        if status.state is State.STOPPED and by_hand:
            return replace(status, detail=STOPPED_BY_HAND)
        return replace(status, detail=readable_cause(status.detail))

    async def _mlx_engine(self, fresh: bool) -> ServiceStatus:
        """Return the engine's status from its gateway; without a gateway there is no engine."""
        gateway = self._supervisor.status()[MLX_SERVER]
        if gateway.state in DOWN:
            return ServiceStatus(State.STOPPED, detail=f"its gateway is {gateway.state}")
        engine = await self._mlx.engine_status(fresh)
        if gateway.state is State.STARTING and (engine is None or engine.state is State.STOPPED):
            return replace(engine or STOPPED, state=State.STARTING, detail="its gateway is starting")
        if engine is not None:
            self._last_engine = (gateway.process_pid, engine)
            return engine
        return self._engine_of_silent_gateway(gateway)

    def _engine_of_silent_gateway(self, gateway: ChildStatus) -> ServiceStatus:
        """Return the engine's status as the gateway reported it last: the engine may work although its
        gateway is silent.
        """
        reported_by, engine = self._last_engine
        if gateway.state in UP and reported_by == gateway.process_pid:
            return replace(engine, detail="its gateway does not answer now; this is what it last reported")
        return replace(STOPPED, detail="its gateway does not answer")

    async def _orchestrators(self, fresh: bool) -> dict[str, ServiceStatus]:
        if self._decision.mode is Mode.OFF:
            off = ServiceStatus(State.ABSENT, detail="switched off (orchestrator.mode)", expected=False)
            return dict.fromkeys(IN_CONTAINERS, off)
        if self._decision.mode is Mode.NATIVE:
            natively = {name: self._child(name, runs="natively") for name in IN_CONTAINERS}
            return await self._with_mistake_in_agents_file(natively)
        statuses = await self._containers.service_statuses(fresh)
        statuses = {name: status.with_extra(runs="in a container") for name, status in statuses.items()}
        return await self._with_mistake_in_agents_file(statuses)

    async def _with_mistake_in_agents_file(
        self, statuses: dict[str, ServiceStatus]
    ) -> dict[str, ServiceStatus]:
        """Return the statuses, with the mistake in the agents' file in the detail of a failing
        orchestrator.
        """
        orchestrator = statuses[ORCHESTRATOR]
        if orchestrator.healthy or orchestrator.detail == STOPPED_BY_HAND:
            return statuses
        if mistake := await self._agents_file.find_mistake():
            statuses = {**statuses, ORCHESTRATOR: replace(orchestrator, detail=mistake)}
        return statuses
