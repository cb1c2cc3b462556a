"""Reads `docker inspect`. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from host_agent.services.docker.exit_cause import Evidence, explain
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
    """Which compose service a container belongs to."""
    return str((inspect.get("Config", {}).get("Labels") or {}).get("com.docker.compose.service", ""))


def row(inspect: Mapping[str, Any], now: float, told: str = "", lasting: bool = False) -> ServiceStatus:
    """The row of a container. `told` is why it last died, where that is known; a row that is ready again
    says it only where it is `lasting`."""
    state = inspect.get("State") or {}
    health = state.get("Health") or {}
    status, running = str(state.get("Status", "")), bool(state.get("Running"))
    found = _state(status, str(health.get("Status", "")))
    up = running and status == "running"
    return ServiceStatus(
        state=found,
        process_pid=state.get("Pid") or None,
        restart_count=int(inspect.get("RestartCount") or 0),
        health_check_failures=int(health.get("FailingStreak") or 0),
        uptime_s=max(0.0, now - timestamp(state.get("StartedAt"))) if up else 0.0,
        detail=_detail(found, status, health, told, lasting),
        extra={
            "container": str(inspect.get("Id", ""))[:12],
            "status": status,
            "exit_code": None if up else state.get("ExitCode"),
            "memory_limit_bytes": limit(inspect),
        },
    )


def evidence(inspect: Mapping[str, Any], **more: Any) -> Evidence:
    """What the container's own record says of its last end, and `more` from elsewhere."""
    state = inspect.get("State") or {}
    known = {"exit_code": int(state.get("ExitCode") or 0), "oom_flag": bool(state.get("OOMKilled"))}
    return Evidence(**{**known, "limit_bytes": limit(inspect), **more})


def last_words(inspect: Mapping[str, Any]) -> str:
    """Why a container that does not run has ended, from its record alone (its end was not watched)."""
    status = str((inspect.get("State") or {}).get("Status", ""))
    return explain(evidence(inspect)).sentence if status in ("exited", "dead", "restarting") else ""


def limit(inspect: Mapping[str, Any]) -> int:
    return int((inspect.get("HostConfig") or {}).get("Memory") or 0)


def timestamp(text: object) -> float:
    """Docker's times have nanoseconds; a container that never ran has the year 1."""
    try:
        return max(0.0, datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _state(status: str, health: str) -> State:
    if status == "running":
        return HEALTH.get(health, State.READY)
    return STATES.get(status, State.STOPPED)


def _detail(state: State, status: str, health: Mapping[str, Any], told: str, lasting: bool) -> str:
    if state is State.READY:
        return told if lasting else ""
    if state is State.DEGRADED and status == "running":
        log = health.get("Log") or [{}]
        return f"unhealthy: {str(log[-1].get('Output', '')).strip()[:200]}"
    return f"{status}; {told}" if told and status != "paused" else status
