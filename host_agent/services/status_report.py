"""Observe every service and the machine, and report their status."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import psutil

from host_agent.errors import DockerUnavailable
from host_agent.services import MLX_SERVER, ORCHESTRATOR, retry_advice
from host_agent.services.disk_report import DiskReport
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.docker_engine import DockerEngineMonitor
from host_agent.services.mlx.answers import as_it_answers
from host_agent.services.mlx.service import MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator.agents_file import AgentsFileCheck
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.retry_advice import RetryAdvice
from host_agent.services.service_status import Failure, ServiceStatus
from host_agent.services.status import rows as status_rows
from host_agent.services.status.rows import EngineReport, Look
from vestal.platform import memory, model_servers
from vestal.supervision import DOWN, ChildStatus, SleepDetector, State, Supervisor


class RestarterStatus(Protocol):
    """Reports what starts the agent again when it has died."""

    restarter: str

    def describe(self) -> str:
        """Return in words what restarts the agent when it fails."""


class FailureReport(Protocol):
    """Provides the last failure of each service."""

    def by_service(self) -> Mapping[str, Failure]:
        """Return the last failure of each service that has one."""


class StatusReport:
    """Observes every service once for each report, and makes the statuses of all services from that one
    observation, so that they agree. It starts, stops and repairs nothing.
    """

    def __init__(
        self,
        watchdog: RestarterStatus,
        supervisor: Supervisor,
        mlx: MlxService,
        ollama: OllamaService,
        docker_engine: DockerEngineMonitor,
        containers: Containers,
        decision: ModeDecision,
        project: str,
        sleep: SleepDetector,
        disk: DiskReport,
        agents_file: AgentsFileCheck,
        failures: FailureReport,
    ) -> None:
        self._watchdog, self._supervisor, self._mlx, self._ollama = watchdog, supervisor, mlx, ollama
        self._docker_engine, self._containers = docker_engine, containers
        self._decision, self._project = decision, project
        self._sleep, self._disk, self._agents_file, self._failures = sleep, disk, agents_file, failures
        self._started_at = time.monotonic()
        self._reported: EngineReport | None = None

    async def service_statuses(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        """Return the status of every service by name, in the order of NAMES.

        With `fresh`, for callers that act on the answer, nothing comes from a cache.
        """
        look = await self._look(fresh)
        found = status_rows.rows(look)
        orchestrator = found[ORCHESTRATOR]
        if orchestrator.healthy or orchestrator.stopped_by_hand:
            return found
        if mistake := await self._agents_file.find_mistake():
            return status_rows.rows(replace(look, mistake_in_agents_file=mistake))
        return found

    async def retry_advice(self) -> dict[str, RetryAdvice]:
        """Return the retry advice for each of `mlx` and `ollama` that is down and that a recovery pass will
        not start.
        """
        answer, ollama = await asyncio.gather(self._engine_answer(False), self._ollama.service_status())
        gateway, engine = answer
        row = ServiceStatus.of_child(gateway)
        shown = status_rows.engine_row(gateway, engine, self._reported)
        advice = {
            "mlx": retry_advice.for_mlx(row, shown, gateway.stopped_by_hand),
            "ollama": retry_advice.for_service(ollama, self._ollama.controller.stopped_by_hand),
        }
        return {name: reason for name, reason in advice.items() if reason}

    def host(self) -> dict[str, Any]:
        """Return the state of the machine for JSON: its memory in bytes, the wired share of it, a warning if
        memory is short (else ""), how many seconds the machine has slept since the agent started, and what
        could not be written to its disk.
        """
        now = memory.read()
        return {
            "memory": now.as_json(),
            "wired_fraction": now.wired_fraction,
            "warning": model_servers.current_headroom(now).message,
            "sleep": {"slept_s": round(self._sleep.slept_s, 1)},
            "disk": self._disk.as_json(),
        }

    async def _look(self, fresh: bool) -> Look:
        """Observe every service. Send all slow queries at the same time, then read what is in memory, so that
        all data is of the same moment. With `fresh`, no answer to a query is taken from a cache.
        """
        answer, ollama, docker, containers = await asyncio.gather(
            self._engine_answer(fresh),
            self._ollama.service_status(fresh),
            self._docker_engine.observe(),
            self._found_containers(fresh),
        )
        gateway, engine = answer
        return Look(
            agent=self._agent(),
            children={**self._supervisor.status(), MLX_SERVER: gateway},
            ollama=ollama,
            docker=docker,
            decision=self._decision,
            mlx_port=self._mlx.port,
            project=self._project,
            predecessors=tuple(self._supervisor.predecessors(MLX_SERVER)),
            engine=engine,
            reported=self._reported,
            containers=containers,
            failures=self._failures.by_service(),
        )

    async def _engine_answer(self, fresh: bool) -> tuple[ChildStatus, ServiceStatus | None]:
        """Return two statuses: the gateway's, and the engine's as the gateway reports it. The engine's is
        None if the gateway does not run or does not answer.

        With `fresh`, the gateway is asked now; otherwise its answer may be a cached one, a fraction of a
        second old. The gateway's state and detail are taken from that answer, because its supervisor's last
        probe may be ten seconds old. If the gateway was replaced during the query, the query is repeated, so
        that both statuses are of the same gateway.
        """
        while True:
            before = self._supervisor.status()[MLX_SERVER]
            answer = None if before.state in DOWN else await self._mlx.answer(fresh)
            gateway = self._supervisor.status()[MLX_SERVER]
            if gateway.process_pid == before.process_pid or gateway.process_pid is None:
                break
            fresh = True
        if answer is None:
            return gateway, None
        self._reported = EngineReport(gateway.process_pid, answer.engine)
        return as_it_answers(gateway, answer.reply), answer.engine

    async def _found_containers(self, fresh: bool) -> Mapping[str, ServiceStatus] | str:
        if self._decision.mode is not Mode.DOCKER:
            return {}
        try:
            return await self._containers.observe(fresh)
        except DockerUnavailable as error:
            return str(error)

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
