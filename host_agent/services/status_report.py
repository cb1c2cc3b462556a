"""The table of services (R4.7): every row, asked for at once."""

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

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
    retry_advice,
)
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.docker_engine import DockerEngine
from host_agent.services.mlx.service import MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator.mode import Decision, Mode
from host_agent.services.retry_advice import RetryAdvice
from host_agent.services.service_status import ServiceStatus, of_child
from vestal.platform import memory, model_servers
from vestal.supervision import DOWN, SleepDetector, State, StateStore, Supervisor


class StatusReport:
    """Reads; owns nothing."""

    def __init__(
        self,
        supervisor: Supervisor,
        mlx: MlxService,
        ollama: OllamaService,
        engine: DockerEngine,
        containers: Containers,
        decision: Decision,
        store: StateStore,
        sleep: SleepDetector,
    ) -> None:
        self._supervisor, self._mlx, self._ollama = supervisor, mlx, ollama
        self._engine, self._containers, self._decision = engine, containers, decision
        self._store, self._sleep = store, sleep
        self._started_at = time.monotonic()

    async def rows(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        """Name → row, in the order of NAMES. `fresh`: nothing from a cache; one who acts on it needs that."""
        engine, ollama, docker, orchestrators = await asyncio.gather(
            self._mlx_engine(fresh), self._ollama.row(fresh), self._engine.row(), self._orchestrators(fresh)
        )
        found = {
            AGENT: self._agent(),
            MLX_SERVER: self._child(MLX_SERVER, port=self._mlx.port),
            MLX_ENGINE: engine,
            OLLAMA: ollama,
            DOCKER: docker,
            **orchestrators,
        }
        return {name: found[name] for name in NAMES}

    async def outlooks(self) -> dict[str, RetryAdvice]:
        """`mlx` and `ollama`, where one of them is down and a recovery pass will not bring it up now."""
        engine, ollama = await asyncio.gather(self._mlx_engine(fresh=False), self._ollama.row())
        by_hand = bool((self._store.load(MLX_SERVER) or {}).get("stopped_by_hand"))
        found = {
            "mlx": retry_advice.of_mlx(self._child(MLX_SERVER), engine, by_hand),
            "ollama": retry_advice.of(ollama, self._ollama.keeper.stopped_by_hand),
        }
        return {name: told for name, told in found.items() if told}

    def host(self) -> dict[str, Any]:
        """The machine: memory in bytes, and how long it has slept since the agent began."""
        now = memory.read()
        return {
            "memory": now.as_json(),
            "wired_fraction": now.wired_fraction,
            "warning": model_servers.current_headroom(now).message,
            "sleep": {"slept_s": round(self._sleep.slept_s, 1)},
        }

    def _agent(self) -> ServiceStatus:
        uptime_s = time.monotonic() - self._started_at
        rss = psutil.Process().memory_info().rss
        return ServiceStatus(
            State.READY, process_pid=os.getpid(), uptime_s=uptime_s, extra={"rss_bytes": rss}
        )

    def _child(self, name: str, **extra: Any) -> ServiceStatus:
        row = of_child(self._supervisor.status()[name], **extra)
        by_hand = (self._store.load(name) or {}).get("stopped_by_hand")
        if row.state is State.STOPPED and by_hand:
            return replace(row, detail="stopped by hand")
        return replace(row, detail=readable_cause(row.detail))

    async def _mlx_engine(self, fresh: bool) -> ServiceStatus:
        server = self._supervisor.status()[MLX_SERVER]
        if server.state in DOWN:
            return ServiceStatus(State.STOPPED, detail=f"its gateway is {server.state}")
        row = await self._mlx.engine(fresh)
        if server.state is State.STARTING and row.state is State.STOPPED:
            return replace(row, state=State.STARTING, detail="its gateway is starting")
        return row

    async def _orchestrators(self, fresh: bool) -> dict[str, ServiceStatus]:
        if self._decision.mode is Mode.OFF:
            off = ServiceStatus(State.ABSENT, detail="switched off (orchestrator.mode)", expected=False)
            return dict.fromkeys(IN_CONTAINERS, off)
        if self._decision.mode is Mode.NATIVE:
            return {name: self._child(name, runs="natively") for name in IN_CONTAINERS}
        rows = await self._containers.rows(fresh)
        return {name: row.with_extra(runs="in a container") for name, row in rows.items()}
