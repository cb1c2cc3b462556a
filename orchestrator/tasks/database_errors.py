"""Make DBOS wait for a database that a full or read-only disk has stopped, instead of failing its tasks.

DBOS repeats an operation whose connection was lost, and takes other errors for the task's own failure: a step
that could not be recorded ended its task, as failed, or without any state until the next start. SQLAlchemy
calls this module's handler for each error of the driver (its event `handle_error`), and DBOS repeats what the
handler marks as a lost connection.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.storage.database import ANSWERING
from orchestrator.storage.failures import WAITED_FOR, FailureCause, cause_of
from orchestrator.tasks.database import TaskDatabase

TRY_AGAIN_S = 1.0
REPORTED_AT_ONCE = WAITED_FOR | {FailureCause.DAMAGED}
"""Causes for which a client gets its answer at once. DBOS itself repeats after others, as long as the client
waits."""


def install(database: TaskDatabase) -> None:
    """Install the handler for all of SQLAlchemy's engines in this process, of which only DBOS has one."""
    from sqlalchemy import Engine, event

    event.listen(Engine, "handle_error", ErrorHandler(database))


class ErrorHandler:
    """SQLAlchemy calls it for each error of the driver, in the thread that ran the statement."""

    def __init__(self, database: TaskDatabase) -> None:
        self._database = database
        self._reported = ""

    def __call__(self, context: Any) -> DatabaseFailed | None:
        """Return the error to raise if a client waits. Otherwise wait for the database, and have DBOS try
        again.
        """
        cause = cause_of(context.original_exception)
        if cause not in REPORTED_AT_ONCE:
            return None
        failure = self._database.failure(context.original_exception)
        if cause is FailureCause.DAMAGED:
            self._database.damaged()
        if ANSWERING.get() or failure is None:
            return failure
        if cause in WAITED_FOR:
            _roll_back(context)
            self._wait(failure)
            context.is_disconnect = True
        return None

    def _wait(self, failure: DatabaseFailed) -> None:
        if failure.message != self._reported:
            emit("tasks_wait", failure.message)
        self._reported = failure.message
        while not self._is_writable() and not self._database.is_lost:
            time.sleep(TRY_AGAIN_S)
        self._reported = ""

    def _is_writable(self) -> bool:
        try:
            self._database.check_writable()
        except DatabaseFailed:
            return False
        return True


def _roll_back(context: Any) -> None:
    """Release the connection's locks, which a check of the database needs.

    SQLite has rolled back by itself after most errors, and there is no connection if it was not opened.
    """
    with contextlib.suppress(Exception):
        context.connection.connection.dbapi_connection.rollback()
