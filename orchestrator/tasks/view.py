"""Convert DBOS's records to tasks as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.unicode import replace_invalid_unicode

STATES = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "done",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
GIVEN_UP = "given up: too many workers died while they ran this task"
FINISHED = {"done", "failed", "cancelled"}
ACTIVE_STATUSES = ["ENQUEUED", "DELAYED", "PENDING"]
FINISHED_STATUSES = [status for status, state in STATES.items() if state in FINISHED]
STARTED_AT_MS = "started_at_ms"
"""The attribute of a task in DBOS's tables that says when the task first began to run."""


def summary(status: Any, given_up: bool = False) -> dict[str, Any]:
    """Return a task, which DBOS recorded as `status`, as the API's list of tasks shows it. `given_up` means
    that it was cancelled because too many workers died while running it, which is shown as failed.
    """
    task = _task_of(status)
    return {
        "id": status.workflow_id,
        "goal": replace_invalid_unicode(task.get("goal", "")),
        "agents": task.get("agents", []),
        "state": "failed" if given_up else STATES.get(status.status, "running"),
        "worker": status.executor_id,
        "created_at": _seconds(status.created_at),
        "started_at": _seconds(recorded_start_ms(status) or status.dequeued_at),
        "finished_at": _seconds(status.completed_at),
    }


def detail(
    status: Any, steps: list[Mapping[str, Any]], running: Mapping[str, str] | None, given_up: bool = False
) -> dict[str, Any]:
    """Return a whole task as the API shows it: its steps, answers and sources, or why it failed.

    `status` and `steps` are DBOS's records of the task and of its finished steps. `running` maps the names of
    the steps that this process runs to what they wait for, "" if they do not wait; it is None or empty if
    this process runs none. `given_up` means that the task was cancelled because too many workers died while
    running it, which is shown as failed.
    """
    view = summary(status, given_up)
    output = status.output if isinstance(status.output, dict) else {}
    view["steps"] = [step_view(step) for step in steps]
    if running and view["state"] == "running":
        recorded = {step["name"] for step in view["steps"]}
        running_steps = ((name, detail) for name, detail in running.items() if name not in recorded)
        view["steps"] += [
            {"name": name, "state": "running", "detail": detail} for name, detail in running_steps
        ]
    answer = output.get("answer")
    view["answer"] = replace_invalid_unicode(answer) if isinstance(answer, str) else answer
    view["answers"] = output.get("answers", [])
    view["sources"] = output.get("sources", [])
    view["notes"] = output.get("notes", [])
    view["error"] = (GIVEN_UP if given_up else _why(status)) if view["state"] == "failed" else None
    return view


def recorded_start_ms(status: Any) -> int | None:
    """Return when the task that DBOS recorded as `status` first began to run, in milliseconds since 1970.
    None if it has not run, or has run only in an earlier version, which recorded no such time.
    """
    return (status.attributes or {}).get(STARTED_AT_MS)


def is_same(status: Any, task: Mapping[str, Any]) -> bool:
    """Return True if the task that DBOS recorded as `status` asks for the same as `task`: both have the
    same goal, and either the same agents, or the same list of agents that the client named. That list is
    compared because, if it is empty, the agents depend on the configuration, which may have changed between
    the two requests.
    """
    stored = _task_of(status)
    return stored.get("goal") == task["goal"] and any(
        stored.get(part) == task[part] for part in ("agents", "named")
    )


def step_view(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return one recorded step as the API shows it."""
    return {
        "name": step["function_name"],
        "state": "failed" if step.get("error") else "done",
        "started_at": _seconds(step.get("started_at_epoch_ms")),
        "finished_at": _seconds(step.get("completed_at_epoch_ms")),
    }


def _why(status: Any) -> str:
    if status.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return GIVEN_UP
    return str(status.error or "it failed without a reason")


def _task_of(status: Any) -> dict[str, Any]:
    arguments = (status.input or {}).get("args") or [{}]
    return arguments[0] if isinstance(arguments[0], dict) else {}


def _seconds(epoch_ms: int | None) -> float | None:
    return epoch_ms / 1000 if epoch_ms else None
