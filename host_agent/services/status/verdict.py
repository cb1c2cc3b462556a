"""Summarize the state of all services in one sentence, the `verdict` of GET /status. Pure."""

from collections.abc import Mapping
from typing import Any

from host_agent.sentences import as_sentence
from host_agent.services import AGENT, DOCKER, MLX_ENGINE, MLX_SERVER, NIGHTLY, OLLAMA, ORCHESTRATOR
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

TITLES = {
    AGENT: "the agent",
    MLX_SERVER: "the MLX server",
    MLX_ENGINE: "the MLX engine",
    OLLAMA: "Ollama",
    DOCKER: "the Docker engine",
    ORCHESTRATOR: "the orchestrator",
    NIGHTLY: "nightly",
}
VERBS = {
    State.STOPPED: "is stopped",
    State.STARTING: "is starting",
    State.DEGRADED: "works with restrictions",
    State.STOPPING: "is being stopped",
    State.BACKOFF: "failed and is about to be started again",
    State.OPEN: "failed too often and is given up for now",
    State.FAILED: "cannot start",
}
SEVERITY = (
    State.FAILED,
    State.OPEN,
    State.STOPPED,
    State.DEGRADED,
    State.BACKOFF,
    State.STARTING,
    State.STOPPING,
)


def verdict(rows: Mapping[str, ServiceStatus], host: Mapping[str, Any]) -> str:
    """Return one sentence about the services, whose statuses `rows` has by name. A service that is unhealthy
    only because of another one is left out, because it has the same cause.

    If all services are healthy, the sentence says so, and also what is wrong with the machine's memory or
    disk (`host`). If each unhealthy service was stopped by a person, it names them. Otherwise it names the
    worst service with its detail and remedy, and the other unhealthy ones by name.
    """
    unwell = {name: row for name, row in rows.items() if not row.healthy}
    causes = [name for name in unwell if not _is_consequence(name, rows, unwell)]
    if not causes:
        working = sum(row.state is not State.ABSENT and row.expected for row in rows.values())
        trouble = _trouble_of_host(host)
        return as_sentence(f"all {working} services work" + (f", but note: {trouble}" if trouble else ""))
    if all(rows[name].stopped_by_hand for name in causes):
        names = _listed(causes)
        verb = "was" if len(causes) == 1 else "were"
        return as_sentence(f"{names} {verb} stopped by hand; `vestal up` starts what was stopped")
    causes.sort(key=lambda name: (rows[name].stopped_by_hand, _severity(rows[name])))
    worst, others = causes[0], causes[1:]
    row = rows[worst]
    why = f": {row.sentence.rstrip('.')}" if row.sentence else ""
    waiting = _waiting(rows, worst)
    also = f"; not well either: {_listed(others)}" if others else ""
    return as_sentence(f"{TITLES[worst]} {VERBS[row.state]}{why}{waiting}{also}")


def _is_consequence(
    name: str, rows: Mapping[str, ServiceStatus], unwell: Mapping[str, ServiceStatus]
) -> bool:
    """Return whether a service is unhealthy because of another one. `unwell` has the rows of all unhealthy
    services.

    The cause is the service that this one depends on. The exception is a gateway that runs but has given up
    its engine: its cause is the engine, although the engine depends on the gateway.
    """
    parent = rows[name].parent
    if name == MLX_ENGINE and parent in unwell:
        return rows[MLX_SERVER].state is not State.DEGRADED
    if name == MLX_SERVER:
        return rows[name].state is State.DEGRADED and MLX_ENGINE in unwell
    return parent in unwell


def _severity(row: ServiceStatus) -> int:
    return SEVERITY.index(row.state) if row.state in SEVERITY else len(SEVERITY)


def _waiting(rows: Mapping[str, ServiceStatus], named: str) -> str:
    """Return a text with the number of requests that wait for the next engine, to be appended to a sentence
    about the service `named`; "" if no request waits. If that is the engine or its gateway, the text calls
    the engine "it".
    """
    requests = rows[MLX_ENGINE].extra.get("requests")
    count = requests.get("parked", 0) if isinstance(requests, Mapping) else 0
    if not count:
        return ""
    target = "it" if named in (MLX_ENGINE, MLX_SERVER) else TITLES[MLX_ENGINE]
    return f"; 1 request waits for {target}" if count == 1 else f"; {count} requests wait for {target}"


def _trouble_of_host(host: Mapping[str, Any]) -> str:
    disk = host.get("disk") or {}
    troubles = (host.get("warning"), disk.get("message"), disk.get("journal"))
    return str(next(filter(None, troubles), "")).rstrip(".")


def _listed(names: list[str]) -> str:
    titles = [TITLES[name] for name in names]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[1:] else titles)
