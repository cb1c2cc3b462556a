"""Format a task's progress and result for the terminal. Pure."""

from collections.abc import Mapping
from typing import Any

from host_agent.cli.screen.styled import without_control_characters

FINISHED = ("done", "failed", "cancelled")
EXIT_CODES = {"done": 0, "failed": 1, "cancelled": 2}


class TaskProgress:
    """Compares successive snapshots of one task, to find the lines about its progress that are new."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def new_lines(self, task: Mapping[str, Any]) -> list[str]:
        """Return a line for the task, and a line for each of its steps, if they have changed since the last
        call.
        """
        lines = {"task": f"task {task['id']}: {task['state']}"}
        for step in task.get("steps", []):
            lines[f"step {step['name']}"] = f"  {step['name']}: {_state(step)}"
        new = [
            without_control_characters(line) for key, line in lines.items() if self._shown.get(key) != line
        ]
        self._shown |= lines
        return new


def result_text(task: Mapping[str, Any]) -> str:
    """Return the answer of a finished task with its sources and notes, or the reason why there is no
    answer.
    """
    if task["state"] == "failed":
        return without_control_characters(f"The task failed: {task.get('error') or 'no reason is known'}")
    if task["state"] == "cancelled":
        return "The task was cancelled."
    files = dict.fromkeys(f"{source['agent']}/{source['file']}" for source in task.get("sources", []))
    parts = [str(task.get("answer") or "")]
    parts += [f"Sources: {', '.join(files)}"] if files else []
    parts += [f"Note: {note}" for note in task.get("notes", [])]
    return without_control_characters("\n\n".join(parts))


def _state(step: Mapping[str, Any]) -> str:
    if step["state"] == "running":
        return str(step.get("detail") or "at work")
    started_at, finished_at = step.get("started_at"), step.get("finished_at")
    if started_at and finished_at:
        return f"{step['state']} ({finished_at - started_at:.1f} s)"
    return str(step["state"])
