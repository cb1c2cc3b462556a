"""A container was killed over its memory limit: which limit, and what would do. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from host_agent.doctor.finding import Finding
from host_agent.services.docker import container_status
from host_agent.services.docker.exit_cause import Cause, explain, gibibytes

NAME = "oom_killed"
STEP = 256 * 1024**2
ENGINE_SHARE = 0.75  # of the engine's memory that one container may sensibly have
SETTING = "VESTAL_ORCHESTRATOR__MEM_LIMIT"


def from_record(inspect: Mapping[str, Any], engine_bytes: int) -> Finding | None:
    """From `docker inspect` of a container that does not run."""
    state = inspect.get("State") or {}
    if state.get("Running") or explain(container_status.evidence(inspect)).cause is not Cause.OUT_OF_MEMORY:
        return None
    evidence = (
        f"docker inspect: OOMKilled, exit code {state.get('ExitCode')}, ended {state.get('FinishedAt')}"
    )
    return finding(
        container_status.service_of(inspect), container_status.limit(inspect), engine_bytes, evidence
    )


def from_journal(events: Iterable[Mapping[str, Any]], engine_bytes: int) -> Iterable[Finding]:
    """From the agent's `container_died` events: the newest of each service."""
    newest = {
        str(event["component"]): event
        for event in events
        if event["fields"].get("reason") == str(Cause.OUT_OF_MEMORY)
    }
    for service, event in newest.items():
        limit = int(event["fields"].get("limit_bytes") or 0)
        yield finding(service, limit, engine_bytes, f"the agent's journal: {event['cause']}")


def finding(service: str, limit: int, engine_bytes: int, evidence: str) -> Finding:
    """The peak of a container that is gone is not kept, but it had reached its limit."""
    over = f"its limit of {gibibytes(limit)}" if limit else "the engine's memory (it has no limit)"
    return Finding(
        NAME, "fault", f"{service} was killed: it reached {over}", advice(limit, engine_bytes), evidence
    )


def advice(limit: int, engine_bytes: int) -> str:
    """Half as much again, where the engine (Docker Desktop's machine) has it to give."""
    wanted = _rounded(limit * 3 // 2)
    more = "give Docker more memory (Docker Desktop: Settings, Resources)"
    if not limit:
        return f"set {SETTING}=2g, or {more}"
    if engine_bytes and wanted > engine_bytes * ENGINE_SHARE:
        return f"{more}: the engine has {gibibytes(engine_bytes)}; then set {SETTING}={wanted // 1024**2}m"
    return f"set {SETTING}={wanted // 1024**2}m and run `vestal up`"


def _rounded(size: int) -> int:
    return -(-size // STEP) * STEP
