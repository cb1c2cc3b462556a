"""Make the row (the status) of every service from one observation of this machine. Pure.

`rows` uses only its argument, so that a state and its words cannot come from different observations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from host_agent.services import (
    AGENT,
    DOCKER,
    IN_CONTAINERS,
    MLX_ENGINE,
    MLX_SERVER,
    NAMES,
    OLLAMA,
    ORCHESTRATOR,
)
from host_agent.services.docker import docker_engine
from host_agent.services.docker.docker_engine import DockerObservation
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.service_status import CAUSE_IN_JOURNAL, Failure, ServiceStatus
from vestal.supervision import DOWN, UP, ChildStatus, State

NO_ORCHESTRATOR = ServiceStatus(State.ABSENT, detail="switched off (orchestrator.mode)", expected=False)
NO_CONTAINER = ServiceStatus(
    State.STOPPED, detail="it has no container", remedy="`vestal recover --once` makes one"
)


@dataclass(frozen=True)
class EngineReport:
    """The engine's status as the gateway with the PID `gateway_pid` reported it."""

    gateway_pid: int | None
    engine: ServiceStatus


@dataclass(frozen=True)
class Look:
    """The results of one observation of this machine, from which `rows` makes the status of every service.

    `agent` and `ollama` are the statuses of the agent and of Ollama, and `docker` is the observation of the
    Docker engine. `children` are the agent's children, `predecessors` the PIDs of older gateways that still
    serve. `decision` says whether the orchestrator runs in containers, and `project` names their compose
    project. `engine` is the engine's status in the gateway's answer to this observation, None if the gateway
    did not answer; `reported` is the engine's status in the last answer that a gateway gave. `containers` has
    the status of each service's container, or is a sentence that says why the containers could not be listed.
    `mistake_in_agents_file` is the first mistake in the file that defines the orchestrator's agents, "" if
    none is known. `failures` has the last failure of each service that has one.
    """

    agent: ServiceStatus
    children: Mapping[str, ChildStatus]
    ollama: ServiceStatus
    docker: DockerObservation
    decision: ModeDecision
    mlx_port: int
    project: str = ""
    predecessors: tuple[int, ...] = ()
    engine: ServiceStatus | None = None
    reported: EngineReport | None = None
    containers: Mapping[str, ServiceStatus] | str = ""
    mistake_in_agents_file: str = ""
    failures: Mapping[str, Failure] = field(default_factory=dict)


def rows(look: Look) -> dict[str, ServiceStatus]:
    """Return the status of every service by its name, in the order of NAMES. The statuses follow from `look`,
    the results of one observation of this machine.
    """
    found = {
        AGENT: look.agent,
        MLX_SERVER: _gateway(look),
        MLX_ENGINE: engine_row(look.children[MLX_SERVER], look.engine, look.reported),
        OLLAMA: look.ollama,
        DOCKER: docker_engine.service_status(_docker(look), look.decision).with_extra(project=look.project),
        **_orchestrators(look),
    }
    parents = _parents(look.decision.mode)
    return {name: _completed(found[name], parents[name], look.failures.get(name)) for name in NAMES}


def _docker(look: Look) -> DockerObservation:
    """Return the observation of the Docker engine. An engine that reports its version but cannot list the
    containers counts as one that does not answer, because it half hangs.
    """
    if isinstance(look.containers, str) and look.containers and not look.docker.error:
        return DockerObservation(error=look.containers, failures=1)
    return look.docker


def _parents(mode: Mode) -> dict[str, str | None]:
    """Return, by the name of each service, the name of the service that it depends on; None for the agent,
    which depends on no other. `mode` says where the orchestrator and `nightly` run: in containers they depend
    on Docker, otherwise on the agent.
    """
    around_orchestrator = DOCKER if mode is Mode.DOCKER else AGENT
    return {
        AGENT: None,
        MLX_SERVER: AGENT,
        MLX_ENGINE: MLX_SERVER,
        OLLAMA: AGENT,
        DOCKER: AGENT,
        **dict.fromkeys(IN_CONTAINERS, around_orchestrator),
    }


def _completed(row: ServiceStatus, parent: str | None, failure: Failure | None) -> ServiceStatus:
    """Return the service's status `row`, with `parent`, the service that this one depends on, and `failure`,
    its last failure in the journal; each is None if there is none.

    After a restart of the agent, the saved state says that a breaker is open but not why. The `detail` of
    such a row is taken from `failure`.
    """
    if row.detail == CAUSE_IN_JOURNAL and failure is not None:
        row = replace(row, detail=failure.sentence)
    return replace(row, parent=parent, last_failure=failure)


def _gateway(look: Look) -> ServiceStatus:
    """Return the gateway's status, which also has the PIDs of older gateways that still serve their last
    clients.
    """
    extra = {"port": look.mlx_port, "predecessors": list(look.predecessors)}
    row = ServiceStatus.of_child(look.children[MLX_SERVER], **extra)
    if not look.predecessors or row.detail:
        return row
    pids = ", ".join(map(str, look.predecessors))
    return replace(row, detail=f"until their clients have their answers, older ones run too: PID {pids}")


def engine_row(
    gateway: ChildStatus, engine: ServiceStatus | None, reported: EngineReport | None
) -> ServiceStatus:
    """Return the status of the MLX engine. `engine` is what the gateway reports now, None if it does not
    answer; `reported` is from the last answer that a gateway gave, None if there was none.

    If the gateway is up but does not answer, the result is `reported` if that is from the same gateway. While
    the gateway starts, a stopped or unknown engine counts as starting. If no gateway runs, or nothing is
    known, the engine counts as stopped.
    """
    if gateway.state in DOWN:
        return ServiceStatus(State.STOPPED, detail=f"its gateway is {gateway.state}")
    if gateway.state is State.STARTING and (engine is None or engine.state is State.STOPPED):
        return ServiceStatus(State.STARTING, detail="its gateway is starting")
    if engine is not None:
        return _with_its_work(engine)
    # The engine may work although its gateway does not answer.
    if gateway.state in UP and reported and reported.gateway_pid == gateway.process_pid:
        silence = "its gateway does not answer now; this is what it last reported"
        return replace(reported.engine, detail=silence, remedy="")
    return ServiceStatus(State.STOPPED, detail="its gateway does not answer")


def _with_its_work(engine: ServiceStatus) -> ServiceStatus:
    """Return the status `engine`. If the engine is busy and its status has no detail, the detail becomes the
    number of requests that it works on.
    """
    requests = engine.extra.get("requests")
    count = requests.get("running", 0) if isinstance(requests, Mapping) else 0
    if engine.state is not State.BUSY or engine.detail or not count:
        return engine
    return replace(engine, detail="it works on 1 request" if count == 1 else f"it works on {count} requests")


def _orchestrators(look: Look) -> dict[str, ServiceStatus]:
    if look.decision.mode is Mode.OFF:
        return dict.fromkeys(IN_CONTAINERS, NO_ORCHESTRATOR)
    if look.decision.mode is Mode.NATIVE:
        found = {name: ServiceStatus.of_child(look.children[name], runs="natively") for name in IN_CONTAINERS}
    else:
        containers = _containers(look)
        found = {name: containers[name].with_extra(runs="in a container") for name in IN_CONTAINERS}
    orchestrator = found[ORCHESTRATOR]
    if look.mistake_in_agents_file and not orchestrator.healthy and not orchestrator.stopped_by_hand:
        found[ORCHESTRATOR] = replace(orchestrator, detail=look.mistake_in_agents_file)
    return found


def _containers(look: Look) -> Mapping[str, ServiceStatus]:
    """Return, by name, the status of each service that runs in a container. If the Docker engine does not
    answer or could not list its containers, all of these services count as stopped, with the reason as
    detail.
    """
    why_unknown = look.docker.error or (look.containers if isinstance(look.containers, str) else "")
    if why_unknown or isinstance(look.containers, str):
        return dict.fromkeys(IN_CONTAINERS, ServiceStatus(State.STOPPED, detail=why_unknown))
    return {name: look.containers.get(name, NO_CONTAINER) for name in IN_CONTAINERS}
