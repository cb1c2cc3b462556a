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
    """Hold a lock of `Database.lock` during the `async with` block. It is acquired and released in a thread,
    so that a server that hangs does not block the event loop. Yields True if the lock is held, and False if
    another process has it.
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
    """The result of an SQL statement: its rows, and the number of rows that it affected (`rowcount`)."""

    rowcount: int

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> list[Row]: ...

    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    """A connection to the database, with a transaction begun."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Result: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object: ...


class Database(ABC):
    """The interface of the orchestrator's database. `name` is shown to people and contains no password;
    `notices` has a sentence for each repair of the database.
    """

    name: str
    notices: list[str]

    @abstractmethod
    def prepare(self) -> None:
        """Create tables that are missing. Raises ConfigError or OSError if the database can never be used as
        it is configured, and DatabaseFailed if it cannot be used at present.
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
        """Free the disk space that deleted rows still take. Return how many bytes were freed; 0 if that is
        unknown.
        """

    @abstractmethod
    def packed(self, vector: list[float]) -> object:
        """Return the vector as it is stored in the column `vectors.vector`."""

    @abstractmethod
    def unpacked(self, value: Any) -> list[float]:
        """Return the vector that `value`, read from the column `vectors.vector`, contains."""

    def meta(self, key: str) -> str | None:
        """Return the value that `set_meta` stored under `key` in the table `meta`; None if there is none."""
        with self.connect() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Store `value` under `key` in the table `meta`, in place of an earlier value."""
        with self.connect() as db:
            db.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
