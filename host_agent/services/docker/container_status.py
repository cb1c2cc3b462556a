"""Read the status of a container from its `docker inspect` record. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from host_agent.services.docker.exit_cause import ContainerExitEvidence, explain
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

STATES = {
    "created": State.STOPPED,
    "exited": State.STOPPED,
    "dead": State.FAILED,
    "removing": State.STOPPING,
    "restarting": State.BACKOFF,
    "paused": State.DEGRADED,
}
HEALTH = {"starting": State.STARTING, "unhealthy": State.DEGRADED}


def service_of(inspect: Mapping[str, Any]) -> str:
    """Return the compose service that a container belongs to."""
    return str((inspect.get("Config", {}).get("Labels") or {}).get("com.docker.compose.service", ""))


def service_status(
    inspect: Mapping[str, Any], now: float, last_death: str = "", is_recurring: bool = False
) -> ServiceStatus:
    """Return the status of a container.

    `last_death` says why it last ended, if that is known. A container that is ready again shows it only
    if it `is_recurring`.
    """
    state = inspect.get("State") or {}
    health = state.get("Health") or {}
    status, running = str(state.get("Status", "")), bool(state.get("Running"))
    found = _state(status, str(health.get("Status", "")))
    is_up = running and status == "running"
    return ServiceStatus(
        state=found,
        process_pid=state.get("Pid") or None,
        restart_count=int(inspect.get("RestartCount") or 0),
        health_check_failures=int(health.get("FailingStreak") or 0),
        uptime_s=max(0.0, now - timestamp(state.get("StartedAt"))) if is_up else 0.0,
        detail=_detail(found, status, health, last_death, is_recurring),
        extra={
            "container": str(inspect.get("Id", ""))[:12],
            "status": status,
            "exit_code": None if is_up else state.get("ExitCode"),
            "memory_limit_bytes": memory_limit_bytes(inspect),
        },
    )


def evidence(inspect: Mapping[str, Any], **more: Any) -> ContainerExitEvidence:
    """Return the evidence on a container's last end: from its `docker inspect` record, with `more` from
    elsewhere.
    """
    state = inspect.get("State") or {}
    known = {"exit_code": int(state.get("ExitCode") or 0), "oom_flag": bool(state.get("OOMKilled"))}
    return ContainerExitEvidence(**{**known, "limit_bytes": memory_limit_bytes(inspect), **more})


def explain_from_record(inspect: Mapping[str, Any]) -> str:
    """Return why a container ended, from its record alone; empty if it runs."""
    status = str((inspect.get("State") or {}).get("Status", ""))
    return explain(evidence(inspect)).sentence if status in ("exited", "dead", "restarting") else ""


def memory_limit_bytes(inspect: Mapping[str, Any]) -> int:
    """Return a container's memory limit, 0 if it has none."""
    return int((inspect.get("HostConfig") or {}).get("Memory") or 0)


def timestamp(text: object) -> float:
    """Return one of Docker's times in seconds since the epoch; 0 if there is none.

    Docker writes nanoseconds, and the year 1 for what has never happened.
    """
    try:
        return max(0.0, datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _state(status: str, health: str) -> State:
    if status == "running":
        return HEALTH.get(health, State.READY)
    return STATES.get(status, State.STOPPED)


def _detail(state: State, status: str, health: Mapping[str, Any], last_death: str, is_recurring: bool) -> str:
    if state is State.READY:
        return last_death if is_recurring else ""
    if state is State.DEGRADED and status == "running":
        log = health.get("Log") or [{}]
        return f"unhealthy: {str(log[-1].get('Output', '')).strip()[:200]}"
    return f"{status}; {last_death}" if last_death and status != "paused" else status
