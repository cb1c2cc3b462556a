"""What a task's progress looks like in a terminal. Pure."""

import re
from collections.abc import Mapping
from typing import Any

FINISHED = ("done", "failed", "cancelled")
EXIT_CODES = {"done": 0, "failed": 1, "cancelled": 2}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Progress:
    """Turns the task as it is told, again and again, into the lines that are new."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def lines(self, task: Mapping[str, Any]) -> list[str]:
        """The lines for what has changed since the last call."""
        told = {"task": f"task {task['id']}: {task['state']}"}
        for step in task.get("steps", []):
            told[f"step {step['name']}"] = f"  {step['name']}: {_state(step)}"
        new = [printable(line) for what, line in told.items() if self._shown.get(what) != line]
        self._shown |= told
        return new


def ending(task: Mapping[str, Any]) -> str:
    """What is to be said last: the answer with its sources, or why there is none."""
    if task["state"] == "failed":
        return printable(f"It failed: {task.get('error') or 'no reason is told'}")
    if task["state"] == "cancelled":
        return "It was cancelled."
    files = dict.fromkeys(f"{source['agent']}/{source['file']}" for source in task.get("sources", []))
    parts = [str(task.get("answer") or "")]
    parts += [f"Sources: {', '.join(files)}"] if files else []
    parts += [f"Note: {note}" for note in task.get("notes", [])]
    return printable("\n\n".join(parts))


def printable(text: str) -> str:
    """A model's words may hold escape sequences; to a terminal those are commands."""
    return _CONTROL.sub("", text)


def _state(step: Mapping[str, Any]) -> str:
    if step["state"] == "running":
        return str(step.get("detail") or "at work")
    begun, ended = step.get("started_at"), step.get("finished_at")
    return f"{step['state']} ({ended - begun:.1f} s)" if begun and ended else str(step["state"])
