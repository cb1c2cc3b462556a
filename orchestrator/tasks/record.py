"""The tasks as DBOS has them stored, for whoever takes over those of a dead worker. It blocks."""

from __future__ import annotations

from typing import Any


class TaskRecord:
    def __init__(self, dbos: Any, queue: str, here: set[str]) -> None:
        self.here = here
        self._dbos = dbos
        self._queue = queue

    def at_work(self) -> dict[str, list[str]]:
        """The tasks at work, by worker."""
        found: dict[str, list[str]] = {}
        for task in self._dbos.list_workflows(status=["PENDING"], load_input=False, load_output=False):
            found.setdefault(task.executor_id, []).append(task.workflow_id)
        return found

    def queue_again(self, tasks: list[str]) -> None:
        """They go on at their first unfinished step. Who had them before can record nothing any more."""
        if tasks:
            self._dbos.resume_workflows(tasks, queue_name=self._queue)

    def give_up(self, task: str) -> None:
        self._dbos.cancel_workflow(task)
