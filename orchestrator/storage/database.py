"""Define the interface of a database. SQL statements use only what SQLite and Postgres have in common.

Placeholders are `?`, columns are read by name, and `ON CONFLICT` and `RETURNING` are used in their common
forms. Where the databases differ (ranking by words or by vectors, compaction), there is a method for each.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from orchestrator.errors import DatabaseFailed

ANSWERING: ContextVar[bool] = ContextVar("answering", default=False)
"""True while a client waits for an answer. A database that fails is then reported at once, instead of being
waited for.
"""


@asynccontextmanager
async def entered(lock: AbstractContextManager[bool]) -> AsyncIterator[bool]:
    """Enter the lock (of `Database.lock`) in a thread, so that a server that hangs does not block the event
    loop. Yields True if the lock is held, and False if another process has it.
    """
    with ExitStack() as stack:
        got = await asyncio.to_thread(stack.enter_context, lock)
        try:
            yield got
        finally:
            await asyncio.to_thread(stack.close)


class Row(Protocol):
    """One row of a result, whose columns are read by name."""

    def __getitem__(self, name: str, /) -> Any: ...


class Result(Protocol):
    """The rows of a statement."""

    rowcount: int

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> list[Row]: ...

    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    """An open connection, in a transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Result: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object: ...


class Database(ABC):
    """A database. `name` is shown to people, without a password; `notices` are sentences about repairs."""

    name: str
    notices: list[str]

    @abstractmethod
    def prepare(self) -> None:
        """Create tables that are missing. Raises ConfigError or OSError if the database cannot be used, and
        DatabaseFailed if it cannot be used for now.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connections that are held open."""

    @abstractmethod
    def connect(self) -> AbstractContextManager[Connection]:
        """Open a connection for one operation, and commit, or roll back after an exception, at the end.
        Raises DatabaseFailed if the database fails.
        """

    @abstractmethod
    def failure(self, error: BaseException) -> DatabaseFailed | None:
        """Convert a database library's exception to DatabaseFailed; None if the exception is not about this
        database.
        """

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Hold a lock among all processes that share the database, and yield True. Yield False if another
        process holds it.
        """

    @abstractmethod
    def compact(self) -> int:
        """Return the space of deleted rows to the disk. Return how many bytes were freed, 0 if that is
        unknown.
        """

    @abstractmethod
    def packed(self, vector: list[float]) -> object:
        """Encode a vector for the column `vectors.vector`."""

    @abstractmethod
    def unpacked(self, value: Any) -> list[float]:
        """Decode a value of the column `vectors.vector`."""

    def meta(self, key: str) -> str | None:
        """Return the value stored under `key`; None if there is none."""
        with self.connect() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Store `value` under `key`."""
        with self.connect() as db:
            db.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
