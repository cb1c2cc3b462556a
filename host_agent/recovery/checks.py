"""The checks of a recovery pass: read the state of every service, and probe those that should answer."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from host_agent.errors import DockerUnavailable
from host_agent.recovery.facts import ControlledBy, Facts, PortFacts, ServiceFacts
from host_agent.recovery.ollama_checks import OllamaChecks
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import DOCKER, IN_CONTAINERS, MLX_ENGINE, MLX_SERVER, OLLAMA, ORCHESTRATOR
from host_agent.services.docker.compose import WORKER
from host_agent.services.docker.containers import Containers
from host_agent.services.retry_advice import GIVEN_UP
from host_agent.services.service_status import ServiceStatus
from host_agent.services.status_report import StatusReport
from vestal.config import Config
from vestal.platform import model_servers, ports
from vestal.platform.processes import vestal_processes
from vestal.supervision import ChildSpec, HealthCheck, ProbeResult, State, StateStore, Supervisor

WATCHDOG = "host_agent.watchdog"
BEING_REPLACED = "it was given up, and its gateway is being replaced"
CONTAINER_GRACE_S = 30.0  # a younger container may still be starting; Docker's own health check watches it


@dataclass(frozen=True)
class ProbeFinding:
    """The result of one probe of a service. `answers` says whether the service answered; it is None if no
    probe was sent, or if the service gave no answer but was seen to work.

    `evidence` says how a service that gave no answer was judged, and is otherwise empty.
    """

    answers: bool | None = None
    evidence: str = ""


class HostChecks:
    """Gathers the facts about this machine for a recovery pass.

    `specs` describe the supervisor's children. `orchestrator` is the health check of an orchestrator that
    runs in a container. `is_replacing_gateway` returns True while the MLX server's gateway is being replaced
    by request. An engine that the old gateway gave up counts as starting then.
    """

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        specs: tuple[ChildSpec, ...],
        containers: Containers,
        status_report: StatusReport,
        store: StateStore,
        orchestrator: HealthCheck,
        ollama: OllamaChecks,
        budget: RestartBudget,
        is_replacing_gateway: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config, self._supervisor, self._containers = config, supervisor, containers
        self._status_report, self._store = status_report, store
        self._specs = {spec.name: spec for spec in specs}
        self._orchestrator, self._ollama, self._budget = orchestrator, ollama, budget
        self._is_replacing_gateway = is_replacing_gateway

    async def gather(self) -> Facts:
        """Check everything now, bypassing caches, and probe each service that should answer."""
        is_replacing_gateway = self._is_replacing_gateway()  # before the old gateway is asked
        statuses = await self._status_report.service_statuses(fresh=True)
        if is_replacing_gateway and (engine := statuses[MLX_ENGINE]).state in GIVEN_UP:
            statuses |= {MLX_ENGINE: replace(engine, state=State.STARTING, detail=BEING_REPLACED)}
        found = await asyncio.gather(*(self._service(name, status) for name, status in statuses.items()))
        services, docker_answers = list(found), statuses[DOCKER].state is State.READY
        try:
            services += await self._workers(statuses)
        except DockerUnavailable as error:  # it answered a moment ago: how many workers there are is unknown
            docker_answers = False
            services = [_unanswered(each, error) if each.name == DOCKER else each for each in services]
        return Facts(
            services=tuple(services),
            ports=tuple(await asyncio.to_thread(self._foreign_ports, statuses)),
            headroom=await asyncio.to_thread(model_servers.current_headroom),
            docker_answers=docker_answers,
            orphans=await self._ollama.orphans(),
        )

    async def is_hung(self, child: str) -> bool:
        """Return whether a child of the supervisor hangs: it should answer, does not, and is not busy."""
        return (await self._probe_child(child)).answers is False

    async def _service(self, name: str, status: ServiceStatus) -> ServiceFacts:
        restarts_left = self._budget.left(name, time.monotonic())
        if name == OLLAMA:
            return self._ollama.facts(status, restarts_left)
        controlled_by = self._controlled_by(name, status)
        probed = ProbeFinding()
        if controlled_by is ControlledBy.SUPERVISOR:
            probed = await self._probe_child(name)
        elif controlled_by is ControlledBy.DOCKER and name == ORCHESTRATOR:
            probed = await self._probe_container(name, status)
        return ServiceFacts(
            name=name,
            controlled_by=controlled_by,
            state=status.state,
            detail=status.detail,
            healthy=status.healthy and probed.answers is not False,
            answers=probed.answers,
            evidence=probed.evidence,
            stopped_by_hand=self._stopped_by_hand(name),
            pid=status.process_pid,
            paused=status.extra.get("status") == "paused",
            restarts_left=restarts_left,
        )

    async def _workers(self, statuses: dict[str, ServiceStatus]) -> list[ServiceFacts]:
        """Return the facts about each worker, a container that only works on tasks. `statuses` has the status
        of each service by name; workers are not in it.

        Return an empty list if the orchestrator does not run in containers, or if the Docker engine did not
        answer according to `statuses`. Raises DockerUnavailable if the engine has stopped answering since.
        """
        controlled_by = self._controlled_by(ORCHESTRATOR, statuses[ORCHESTRATOR])
        if controlled_by is not ControlledBy.DOCKER or statuses[DOCKER].state is not State.READY:
            return []
        workers = await self._containers.workers()
        return [self._worker(status, str(status.extra["container"])) for status in workers]

    def _worker(self, status: ServiceStatus, container: str) -> ServiceFacts:
        return ServiceFacts(
            name=WORKER,
            controlled_by=ControlledBy.DOCKER,
            state=status.state,
            detail=f"{status.detail} (container {container})",
            healthy=status.healthy,
            pid=status.process_pid,
            paused=status.extra.get("status") == "paused",
            restarts_left=self._budget.left(container, time.monotonic()),
            container=container,
        )

    def _controlled_by(self, name: str, status: ServiceStatus) -> ControlledBy:
        if name in self._specs:
            return ControlledBy.SUPERVISOR
        if name in IN_CONTAINERS and status.expected:
            return ControlledBy.DOCKER
        return ControlledBy.NOBODY

    def _stopped_by_hand(self, name: str) -> bool:
        """Return whether a person stopped the service and nobody has started it since. The MLX engine is
        stopped and started with its gateway.
        """
        if name == MLX_ENGINE:
            name = MLX_SERVER
        if name in self._specs:
            return bool((self._store.load(name) or {}).get("stopped_by_hand"))
        return name in IN_CONTAINERS and self._containers.stopped_by_hand(name)

    async def _probe_child(self, name: str) -> ProbeFinding:
        """Probe a child of the supervisor. If the child is starting or down, or was replaced during the
        probe, return `ProbeFinding()`, as if no probe had been sent.
        """
        return _finding(await self._supervisor.check_health(name))

    async def _probe_container(self, name: str, status: ServiceStatus) -> ProbeFinding:
        """Probe a container's program. If the container is starting, paused or down, or ended or was paused
        during the probe, return `ProbeFinding()`, as if no probe had been sent.

        This probe is faster than Docker's own health check, which takes four failures, some 30 s or more, to
        call a hung program unhealthy.
        """
        pid = status.process_pid
        is_up = status.state in (State.READY, State.DEGRADED) and status.extra.get("status") == "running"
        if not is_up or pid is None or status.uptime_s < CONTAINER_GRACE_S:
            return ProbeFinding()
        found = _finding(await self._orchestrator.settle(pid))
        if found.answers is not False:
            return found
        try:
            again = (await self._containers.observe(fresh=True)).get(name)
        except DockerUnavailable:
            return found  # a container that does not answer is not well because its engine is silent too
        if again is None or again.process_pid != pid or again.extra.get("status") != "running":
            return ProbeFinding()  # the container ended, or was paused, during the probe
        return found

    def _foreign_ports(self, statuses: dict[str, ServiceStatus]) -> list[PortFacts]:
        """Return the ports that a foreign process holds although the service of the port is down. `statuses`
        has the status of each service by name.

        The agent and the processes that it supervises do not count as foreign. Neither does the agent's
        watchdog, which keeps the service's sockets open for the service's next process.
        """
        wanted = {MLX_SERVER: (self._config.mlx.port, "VESTAL_MLX_PORT")}
        if ORCHESTRATOR in self._specs:
            wanted[ORCHESTRATOR] = (self._config.orchestrator.port, "VESTAL_ORCHESTRATOR_PORT")
        found = []
        for name, (port, setting) in wanted.items():
            holder = ports.holder(port) if statuses[name].process_pid is None else None
            # The status is a moment old: the service's new process may hold the port by now.
            if holder is None or holder.pid in self._own_pids(name):
                continue
            module = self._server_module(holder.pid)
            if module != WATCHDOG:
                sentence = ports.in_use_message(holder, setting)
                found.append(PortFacts(name, holder.pid, sentence, held_by_old_server=bool(module)))
        return found

    def _own_pids(self, service: str) -> set[int | None]:
        """Return the PIDs of the agent, of the processes that it supervises, and of the older processes of
        `service` that still serve their last clients.
        """
        supervised = (status.process_pid for status in self._supervisor.status().values())
        return {os.getpid(), *supervised, *self._supervisor.predecessors(service)} - {None}

    def _server_module(self, pid: int | None) -> str | None:
        """Return which server of this home the process runs, by its module; None if it runs none."""
        home = self._config.home
        return vestal_processes.server_module(pid, home.root, home.default_root) if pid else None


def _unanswered(docker: ServiceFacts, error: DockerUnavailable) -> ServiceFacts:
    """Return the facts about the Docker engine after a request to it failed with `error`."""
    return replace(docker, state=State.STOPPED, healthy=False, detail=str(error))


def _finding(result: ProbeResult | None) -> ProbeFinding:
    if result is None or (result.alive and not result.answered):
        return ProbeFinding(None, result.detail if result else "")
    return ProbeFinding(result.alive, "" if result.alive else result.detail)
