"""How a recovery pass reaches the world: looks at the services, and carries remedies out."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from host_agent.recovery.facts import (
    BringUp,
    EndOrphan,
    EndProcess,
    Facts,
    Kind,
    PortFacts,
    Remedy,
    ReplaceHung,
    RestartContainer,
    ServiceFacts,
    StartChild,
    ThroughOwner,
    Unpause,
)
from host_agent.recovery.ollama_effects import OllamaEffects
from host_agent.services import DOCKER, IN_CONTAINERS, MLX_SERVER, OLLAMA, ORCHESTRATOR, terminate
from host_agent.services.docker.containers import STOP_S, Containers
from host_agent.services.service_status import ServiceStatus, of_child
from host_agent.services.status_report import StatusReport
from vestal.config import Config
from vestal.platform import model_servers, ports
from vestal.platform.processes import vestal_processes
from vestal.supervision import DOWN, ChildSpec, Intensity, ProbeResult, State, StateStore, Supervisor

RESTARTS_PER_HOUR = Intensity(max_restarts=5, window_s=3600.0)  # R4.4
ASK_TIMEOUT_S = 3.0
CONTAINER_GRACE_S = 30.0  # a younger one may still be coming up; Docker's own check sees to it
HUNG_STOP_S = 3
BY_PASS = "a recovery pass"


class HostEffects:
    """The `Hands` of the passes on this host."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        specs: tuple[ChildSpec, ...],
        containers: Containers,
        table: StatusReport,
        store: StateStore,
        orchestrator_answers: Callable[[], Awaitable[bool]],
        ollama: OllamaEffects,
    ) -> None:
        self._config, self._supervisor, self._containers = config, supervisor, containers
        self._table, self._store = table, store
        self._specs = {spec.name: spec for spec in specs}
        self._orchestrator_answers, self._ollama = orchestrator_answers, ollama
        self._replaced: dict[str, Intensity] = {}

    async def gather(self) -> Facts:
        """Look at everything, now, and ask each service that should answer."""
        rows = await self._table.rows(fresh=True)
        names = list(rows)
        services = await asyncio.gather(*(self._service(name, rows[name]) for name in names))
        return Facts(
            services=tuple(services),
            ports=tuple(await asyncio.to_thread(self._ports, rows)),
            headroom=await asyncio.to_thread(model_servers.current_headroom),
            engine_answers=rows[DOCKER].state is State.READY,
            orphans=await self._ollama.orphans(),
        )

    async def apply(self, remedy: Remedy) -> None:
        match remedy:
            case EndProcess(_, pid):
                await terminate.terminate(pid, self._config.supervision.stop_s)
            case EndOrphan(_, pid):
                await self._ollama.end_orphan(pid)
            case ThroughOwner(service, action, _):
                self._count(service)
                await self._ollama.through_owner(action, f"{action} by {BY_PASS}")
            case StartChild(service) if service == OLLAMA:
                await self._ollama.start(f"started by {BY_PASS}")
            case ReplaceHung(service, pid) if service == OLLAMA:
                self._count(service)
                await self._ollama.replace(pid)
            case StartChild(service):
                await self._supervisor.start_child(service, f"started by {BY_PASS}")
            case ReplaceHung(service, pid):
                self._count(service)
                await terminate.terminate(pid, self._config.supervision.stop_s)
                await self._supervisor.wait_for(service, set(State) - {State.STOPPING, State.STOPPED}, 30.0)
            case BringUp(service):
                await self._containers.bring_up(service)
            case RestartContainer(service, hung):
                self._count(service)
                await self._containers.restart(service, BY_PASS, HUNG_STOP_S if hung else STOP_S)
            case Unpause(service):
                await self._containers.unpause(service)

    def stopped_by_hand(self, name: str) -> bool:
        """Whether a person stopped it, and nobody has started it since."""
        if name in self._specs:
            return bool((self._store.load(name) or {}).get("stopped_by_hand"))
        if name == OLLAMA:
            return self._ollama.stopped_by_hand
        return name in IN_CONTAINERS and self._containers.stopped_by_hand(name)

    async def is_hung(self, name: str) -> bool:
        """Whether a child that should answer does not."""
        return await self._answers(name, of_child(self._supervisor.status()[name])) is False

    async def _service(self, name: str, row: ServiceStatus) -> ServiceFacts:
        if name == OLLAMA:
            return self._ollama.facts(row, self._restarts_left(name))
        is_child = name in self._specs
        in_container = name in IN_CONTAINERS and not is_child and row.expected
        kind = Kind.CHILD if is_child else Kind.CONTAINER if in_container else Kind.WATCHED
        answers = None
        if is_child:
            answers = await self._answers(name, row)
        elif in_container and name == ORCHESTRATOR:
            answers = await self._container_answers(name, row)
        return ServiceFacts(
            name=name,
            kind=kind,
            state=row.state,
            detail=row.detail,
            well=row.well and answers is not False,
            answers=answers,
            stopped_by_hand=self.stopped_by_hand(name),
            pid=row.process_pid,
            paused=row.extra.get("status") == "paused",
            restarts_left=self._restarts_left(name),
        )

    def forget_replacements(self) -> None:
        """The machine slept: what was replaced before does not count."""
        self._replaced.clear()

    def _count(self, name: str) -> None:
        self._replaced[name] = self._replaced.get(name, RESTARTS_PER_HOUR).add(time.monotonic())

    def _restarts_left(self, name: str) -> int:
        counted = self._replaced.get(name, RESTARTS_PER_HOUR)
        return counted.max_restarts - len(counted.recent(time.monotonic()))

    async def _container_answers(self, name: str, row: ServiceStatus) -> bool | None:
        """Docker's own check takes four failures, some 30 s and more, to call a wedged program unhealthy."""
        if row.state not in (State.READY, State.DEGRADED) or row.extra.get("status") != "running":
            return None
        if row.uptime_s < CONTAINER_GRACE_S:
            return None
        for _ in range(2):
            if await self._orchestrator_answers():
                return True
        again = (await self._containers.rows(fresh=True))[name]
        same = again.process_pid == row.process_pid and again.extra.get("status") == "running"
        return False if same else None  # it ended, or was paused, while it was asked

    async def _answers(self, name: str, row: ServiceStatus) -> bool | None:
        """Two questions in a row without an answer are a no; what is starting or down is not asked."""
        health = self._specs[name].health
        if health is None or row.process_pid is None or row.state in (*DOWN, State.STARTING, State.STOPPING):
            return None
        for _ in range(2):
            with contextlib.suppress(Exception):  # whatever a probe raises is no answer
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    result: ProbeResult = await health(row.process_pid)
                    if result.alive:
                        return True
            if self._supervisor.status()[name].process_pid != row.process_pid:
                return None  # it died while it was asked: its supervisor is at it
        return False

    def _ports(self, rows: dict[str, ServiceStatus]) -> list[PortFacts]:
        wanted = {MLX_SERVER: (self._config.mlx.port, "VESTAL_MLX_PORT")}
        if ORCHESTRATOR in self._specs:
            wanted[ORCHESTRATOR] = (self._config.orchestrator.port, "VESTAL_ORCHESTRATOR_PORT")
        found = []
        for name, (port, setting) in wanted.items():
            held = ports.holder(port) if rows[name].process_pid is None else None
            # Looked at a moment ago; its new process may hold the port by now.
            if held and held.pid != self._supervisor.status()[name].process_pid:
                found.append(self._port(name, port, held, setting))
        return found

    def _port(self, name: str, port: int, held: ports.PortHolder, setting: str) -> PortFacts:
        module = held.pid and vestal_processes.server_module(
            held.pid, self._config.home.root, self._config.home.default_root
        )
        return PortFacts(name, port, held.pid, ports.in_use_message(held, setting), bool(module))
