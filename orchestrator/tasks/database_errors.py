"""Make DBOS wait while a full, read-only or broken disk makes the database unusable, instead of failing its
tasks. Convert the database errors that the orchestrator's calls of DBOS raise to DatabaseFailed, which the
API answers with status 503.

DBOS repeats an operation whose connection was lost, but takes any other error for the task's own failure: a
step that cannot be recorded would end its task. SQLAlchemy calls this module's handler for each error of the
driver (its event `handle_error`), and DBOS repeats an operation if the handler marks its error as a lost
connection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.storage.database import ANSWERING
from orchestrator.storage.failures import WAITED_FOR, FailureCause, cause_of
from orchestrator.tasks.database import TaskDatabase

TRY_AGAIN_S = 1.0
REPORTED_AT_ONCE = WAITED_FOR | {FailureCause.DAMAGED}
"""Causes for which a client gets its answer at once. After other errors, DBOS itself repeats the operation
while the client waits.
"""


@contextlib.contextmanager
def converted(database: TaskDatabase) -> Iterator[None]:
    """Convert database exceptions in the `with` block to DatabaseFailed."""
    try:
        yield
    except Exception as error:
        failure = database.failure(error)
        if failure is None:
            raise
        raise failure from error


@contextlib.asynccontextmanager
async def translated(database: TaskDatabase) -> AsyncIterator[None]:
    """Convert database exceptions in the `async with` block to DatabaseFailed. During the block, a client
    waits for an answer, so an error of a full or read-only disk is raised at once. Outside of such a block,
    `ErrorHandler` waits until the database can be written again.
    """
    token = ANSWERING.set(True)
    try:
        with converted(database):
            yield
    finally:
        ANSWERING.reset(token)


def install(database: TaskDatabase) -> None:
    """Make all SQLAlchemy engines in this process report errors of the database driver to an `ErrorHandler`
    for `database`. Only DBOS uses SQLAlchemy here.
    """
    from sqlalchemy import Engine, event

    event.listen(Engine, "handle_error", ErrorHandler(database))


class ErrorHandler:
    """Decides what happens at an error of the database driver. SQLAlchemy calls the handler in the thread
    that ran the statement.

    If a client waits for an answer, and the cause is the disk (full, read-only or broken) or a damaged
    database, DatabaseFailed is raised in place of the error. If no client waits and the cause is the disk,
    the handler waits until `database` can be written again, and then has DBOS repeat the operation. Any other
    error stays as it is.
    """

    def __init__(self, database: TaskDatabase) -> None:
        self._database = database
        self._reported = ""

    def __call__(self, context: Any) -> DatabaseFailed | None:
        """Return the error to raise in place of the driver's if a client waits for an answer and the cause is
        the disk or a damaged database; otherwise None. A corrupt file is moved aside.

        If no client waits and the disk is full, read-only or broken, first block until the database can be
        written, and mark the error as a lost connection, so that DBOS tries again. `context` is SQLAlchemy's
        ExceptionContext.
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
    """Roll back the transaction of the connection that had the error, to release its locks. `ErrorHandler`
    then tries to write to the database until that succeeds, and these locks would block each attempt.
    `context` is SQLAlchemy's ExceptionContext.

    An error of the rollback is ignored: SQLite has rolled back by itself after most errors, and there is no
    connection if opening it failed.
    """
    with contextlib.suppress(Exception):
        context.connection.connection.dbapi_connection.rollback()
