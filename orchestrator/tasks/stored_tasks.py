"""Read and change the tasks in DBOS's tables: for workers that take over the tasks of a dead one, and to keep
the time at which a task began.
"""

from __future__ import annotations

import time
from typing import Any

from orchestrator.events import emit
from orchestrator.tasks import view
from orchestrator.tasks.database import TaskDatabase
from orchestrator.tasks.database_errors import converted


class StoredTasks:
    """Implements `workers.reaper.Tasks`. All methods block, and raise DatabaseFailed if the database fails.
    `dbos` is DBOS's instance, and `here` has the ids of the tasks that run in this process.
    """

    def __init__(self, dbos: Any, database: TaskDatabase, queue: str, here: set[str]) -> None:
        self.here = here
        self._dbos = dbos
        self._database = database
        self._queue = queue

    def at_work(self) -> dict[str, list[str]]:
        """Return the ids of the running tasks by worker."""
        found: dict[str, list[str]] = {}
        with converted(self._database):
            running = self._dbos.list_workflows(status=["PENDING"], load_input=False, load_output=False)
        for task in running:
            found.setdefault(task.executor_id, []).append(task.workflow_id)
        return found

    def queue_again(self, worker: str, tasks: list[str]) -> None:
        """Queue those of the tasks again that are still recorded as running on `worker`, but none that was
        cancelled, has finished, or was taken by another worker. They continue at their first unfinished step;
        earlier runs of them can record nothing more.

        This calls the method of DBOS's own recovery, which compares and writes in one statement. The public
        `resume_workflows` also revives a task that was cancelled a moment ago.
        """
        with converted(self._database):
            for task in tasks:
                self._dbos._sys_db.reenqueue_for_recovery(task, [worker], self._queue)

    def give_up(self, task: str) -> None:
        """Cancel the task, because too many workers died while running it."""
        with converted(self._database):
            self._dbos.cancel_workflow(task)


def record_start(dbos: Any, task: str) -> None:
    """Record when the task first began to run, unless an earlier run has recorded it. `dbos` is the class
    DBOS. DBOS itself keeps only the time of the last run, and deletes it when the task is cancelled, given up
    or queued again.

    This blocks. It must not run in the context of the task, because DBOS would count it as one of the task's
    steps. An error is only logged, because a task can be done without this time.
    """
    try:
        found = dbos.list_workflows(workflow_ids=[task], load_input=False, load_output=False)
        if found and view.recorded_start_ms(found[0]) is None:
            started_at_ms = found[0].dequeued_at or int(time.time() * 1000)
            dbos.update_workflow_attributes(task, {view.STARTED_AT_MS: started_at_ms})
    except Exception as error:
        emit("task_start_not_recorded", repr(error), task=task)
