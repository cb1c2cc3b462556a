"""Read the status of a container from its `docker inspect` record. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from host_agent.services.docker.exit_cause import ContainerExitEvidence, explain
from host_agent.services.service_status import START_AGAIN, STOPPED_BY_HAND, ServiceStatus
from vestal.supervision import State

STATES = {
    "created": State.STOPPED,
    "exited": State.STOPPED,
    "dead": State.FAILED,
    "removing": State.STOPPING,
    "restarting": State.BACKOFF,
    "paused": State.DEGRADED,
}
STATUS_WORDS = {
    "created": ("its container was made and never started", "a recovery pass starts it"),
    "exited": ("its container has ended", "a recovery pass starts it"),
    "dead": (
        "Docker could not remove its container and calls it dead",
        "`docker rm --force` removes it, and `vestal up` makes another one",
    ),
    "removing": ("Docker is removing its container", ""),
    "restarting": ("its container ended, and Docker is about to start it again", ""),
    "paused": ("its container is paused", "a recovery pass resumes it"),
}
"""Detail and remedy for each status of a container that does not run."""
OUTPUT_CHARACTERS = 200
HEALTH = {"starting": State.STARTING, "unhealthy": State.DEGRADED}


def service_of(inspect: Mapping[str, Any]) -> str:
    """Return the compose service that a container belongs to; "" if it belongs to none, as a container of
    `docker compose run` does.
    """
    return service_of_labels(inspect.get("Config", {}).get("Labels") or {})


def service_of_labels(labels: Mapping[str, Any]) -> str:
    """Return the compose service that the container with these labels belongs to; "" if it belongs to none.

    A container of `docker compose run` has its service's label, but is an extra one that a person started.
    """
    is_extra = str(labels.get("com.docker.compose.oneoff", "")).lower() == "true"
    return "" if is_extra else str(labels.get("com.docker.compose.service", ""))


def run_of(inspect: Mapping[str, Any]) -> str:
    """Return a text that identifies the present or last run of a container: a later start changes it."""
    return f"{inspect.get('Id', '')} {(inspect.get('State') or {}).get('StartedAt', '')}"


def is_running(inspect: Mapping[str, Any]) -> bool:
    """Return whether the container runs, and is not paused."""
    return str((inspect.get("State") or {}).get("Status", "")) == "running"


def service_status(
    inspect: Mapping[str, Any],
    now: float,
    last_death: str = "",
    is_recurring: bool = False,
    stopped_by_hand: bool = False,
) -> ServiceStatus:
    """Return the status of a container.

    `last_death` says why the container last ended; "" if that is unknown. The status of a container that is
    ready again mentions `last_death` only if its cause `is_recurring`.
    """
    state = inspect.get("State") or {}
    health = state.get("Health") or {}
    status, running = str(state.get("Status", "")), bool(state.get("Running"))
    found = _state(status, str(health.get("Status", "")))
    is_up = running and status == "running"
    by_hand = stopped_by_hand and found is State.STOPPED
    detail, remedy = _detail_and_remedy(found, status, health, last_death, is_recurring)
    if by_hand:
        detail, remedy = STOPPED_BY_HAND, START_AGAIN
    return ServiceStatus(
        state=found,
        process_pid=state.get("Pid") or None,
        restart_count=int(inspect.get("RestartCount") or 0),
        health_check_failures=int(health.get("FailingStreak") or 0) if is_up else 0,
        uptime_s=max(0.0, now - timestamp(state.get("StartedAt"))) if is_up else 0.0,
        detail=detail,
        remedy=remedy,
        stopped_by_hand=by_hand,
        extra={
            "container": str(inspect.get("Id", ""))[:12],
            "status": status,
            "exit_code": None if is_up else state.get("ExitCode"),
            "memory_limit_bytes": memory_limit_bytes(inspect),
        },
    )


def evidence(inspect: Mapping[str, Any], **more: Any) -> ContainerExitEvidence:
    """Return the evidence on a container's last end, from its `docker inspect` record. The fields in `more`
    are added to those of the record, or replace them.
    """
    state = inspect.get("State") or {}
    known = {"exit_code": int(state.get("ExitCode") or 0), "oom_flag": bool(state.get("OOMKilled"))}
    return ContainerExitEvidence(**{**known, "limit_bytes": memory_limit_bytes(inspect), **more})


def explain_from_record(inspect: Mapping[str, Any]) -> str:
    """Return why a container ended, from its `docker inspect` record alone; "" if it has not ended."""
    status = str((inspect.get("State") or {}).get("Status", ""))
    return explain(evidence(inspect)).sentence if status in ("exited", "dead", "restarting") else ""


def memory_limit_bytes(inspect: Mapping[str, Any]) -> int:
    """Return a container's memory limit in bytes; 0 if it has none."""
    return int((inspect.get("HostConfig") or {}).get("Memory") or 0)


def timestamp(text: object) -> float:
    """Convert one of Docker's times to seconds since 1970; return 0 if there is none.

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


def _detail_and_remedy(
    state: State, status: str, health: Mapping[str, Any], last_death: str, is_recurring: bool
) -> tuple[str, str]:
    """Return the `detail` and the `remedy` of a container's status. Each is "" if there is nothing to say.

    `state` is the container's state in Vestal's terms, `status` in Docker's, and `health` the record of its
    health checks. `last_death` says why the container last ended, and `is_recurring` whether that cause
    persists.
    """
    if state is State.READY:
        recurs = is_recurring and last_death
        return (f"it works again; its last run ended at {last_death}" if recurs else ""), ""
    if status == "running":
        outputs = [str(check.get("Output", "")).strip() for check in health.get("Log") or []]
        said = f": {outputs[-1][:OUTPUT_CHARACTERS]}" if outputs and outputs[-1] else ""
        if state is State.STARTING:
            return f"its container runs, and its health check has not succeeded yet{said}", ""
        return f"its container runs, and its health check fails{said}", "a recovery pass restarts it"
    happened, remedy = STATUS_WORDS.get(status, (f"its container is {status or 'in an unknown state'}", ""))
    past = f"; its last run ended at {last_death}" if last_death and status != "paused" else ""
    return happened + past, remedy
