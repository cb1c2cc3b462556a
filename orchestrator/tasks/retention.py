"""Delete old finished tasks with their steps and answers. The nightly service, which also works on the
agents' knowledge, does this each night.

The deletion uses DBOS's client, which runs no task. Queued and running tasks are never deleted, however old
they are. The `idempotency_key` of a task is deleted with it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.tasks.database import TaskDatabase
from orchestrator.tasks.view import FINISHED_STATUSES

KEPT = 1000  # finished tasks, in addition to those of the last day
KEPT_S = 86400.0
AT_ONCE = 100  # tasks per transaction, so that the orchestrator never waits long


def drop_old_tasks(database: TaskDatabase, now: float, kept: int = KEPT, kept_s: float = KEPT_S) -> int:
    """Delete the tasks that finished more than `kept_s` seconds before `now`, except for the `kept` of these
    that were created last. Return how many were deleted. `now` is in seconds since 1970.

    If the database fails, log that and return 0. The tasks that were not deleted are left for the next night.
    """
    try:
        if not database.has_tasks():
            return 0
        return _dropped(database, datetime.fromtimestamp(now - kept_s, UTC).isoformat(), kept)
    except DatabaseFailed as error:
        emit("old_tasks_not_dropped", error.message)
        return 0


def _dropped(database: TaskDatabase, finished_before: str, kept: int) -> int:
    from dbos import DBOSClient
    from sqlalchemy.exc import SQLAlchemyError

    client = DBOSClient(system_database_url=database.url, retry_connection_errors=False, lazy=True)
    try:
        return _drop(client, database, finished_before, kept)
    except SQLAlchemyError as error:
        raise database.failure(error) or DatabaseFailed(str(error)) from error
    finally:
        client.destroy()


def _drop(client: Any, database: TaskDatabase, finished_before: str, kept: int) -> int:
    dropped = 0
    while True:
        old = client.list_workflows(
            status=FINISHED_STATUSES,
            completed_before=finished_before,
            sort_desc=True,
            offset=kept,
            limit=AT_ONCE,
            load_input=False,
            load_output=False,
        )
        if not old:
            return dropped
        names = [task.workflow_id for task in old]
        client.delete_workflows(names)
        database.forget(names)
        dropped += len(old)
