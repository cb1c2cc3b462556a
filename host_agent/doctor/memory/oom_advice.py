"""Report a container that was killed at its memory limit, and advise a higher limit. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from host_agent.doctor.finding import Finding
from host_agent.services.docker import container_status
from host_agent.services.docker.exit_cause import ExitCause, explain
from vestal.config.units import format_size

NAME = "oom_killed"
LIMIT_STEP_BYTES = 256 * 1024**2
MAX_SHARE_OF_DOCKER = 0.75  # the largest share of the Docker engine's memory for one container
LIMIT_SETTING = "VESTAL_ORCHESTRATOR__MEM_LIMIT"


def assess_inspect(inspect: Mapping[str, Any], docker_bytes: int) -> Finding | None:
    """Return a fault if a container was killed at its memory limit and does not run again, else None.

    `inspect` is what `docker inspect` returns for the container. `docker_bytes` is the memory of the Docker
    engine (with Docker Desktop, of its virtual machine), or 0 if unknown.
    """
    state = inspect.get("State") or {}
    if (
        state.get("Running")
        or explain(container_status.evidence(inspect)).cause is not ExitCause.OUT_OF_MEMORY
    ):
        return None
    evidence = (
        f"docker inspect: OOMKilled, exit code {state.get('ExitCode')}, ended {state.get('FinishedAt')}"
    )
    service, limit_bytes = container_status.service_of(inspect), container_status.memory_limit_bytes(inspect)
    return _finding(service, limit_bytes, docker_bytes, evidence)


def assess_events(events: Iterable[Mapping[str, Any]], docker_bytes: int) -> Iterable[Finding]:
    """Yield a fault for each service whose container was killed at its memory limit, from its newest event.

    `events` are the `container_died` events of the agent's journal, oldest first. `docker_bytes` is the
    memory of the Docker engine, or 0 if unknown. The fault advises a higher limit and, if `docker_bytes` is
    too small for that limit, also more memory for Docker.
    """
    newest = {
        str(event["component"]): event
        for event in events
        if event["fields"].get("reason") == str(ExitCause.OUT_OF_MEMORY)
    }
    for service, event in newest.items():
        limit_bytes = int(event["fields"].get("limit_bytes") or 0)
        yield _finding(service, limit_bytes, docker_bytes, f"the agent's journal: {event['cause']}")


def remedy(limit_bytes: int, docker_bytes: int) -> str:
    """Return the advice to raise a container's memory limit by half or, if it has no limit, to set one.

    If the Docker engine has too little memory for the higher limit, also advise to give Docker more memory.
    `limit_bytes` is 0 if the container has no limit, and `docker_bytes` is 0 if unknown.
    """
    wanted_bytes = _round_up(limit_bytes * 3 // 2)
    wanted = f"{wanted_bytes // 1024**2}m"
    where = "Docker Desktop: Settings, Resources"
    if not limit_bytes:
        return f"Set {LIMIT_SETTING}=2g, or give Docker more memory ({where})."
    if docker_bytes and wanted_bytes > docker_bytes * MAX_SHARE_OF_DOCKER:
        more = f"Give Docker more memory ({where}): it has {format_size(docker_bytes)}."
        return f"{more} Then set {LIMIT_SETTING}={wanted}."
    return f"Set {LIMIT_SETTING}={wanted} and run `vestal up`."


def _finding(service: str, limit_bytes: int, docker_bytes: int, evidence: str) -> Finding:
    limit = (
        f"its limit of {format_size(limit_bytes)}"
        if limit_bytes
        else "Docker's whole memory (it has no limit)"
    )
    sentence = f"{service} was killed: it reached {limit}."
    return Finding(NAME, "fault", sentence, remedy(limit_bytes, docker_bytes), evidence)


def _round_up(size_bytes: int) -> int:
    return -(-size_bytes // LIMIT_STEP_BYTES) * LIMIT_STEP_BYTES
