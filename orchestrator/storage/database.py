"""The interface of a database. SQL statements use only what SQLite and Postgres have in common.

Placeholders are `?`, columns are read by name, and `ON CONFLICT` and `RETURNING` are used in their common
forms. What differs (ranking by words or by vectors, compaction) has methods of its own.
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
"""True while a client waits for an answer: then a database that fails is reported at once, not waited for."""


@asynccontextmanager
async def entered(lock: AbstractContextManager[bool]) -> AsyncIterator[bool]:
    """Enter `Database.lock` in a thread, so that a server that hangs does not block the event loop."""
    with ExitStack() as stack:
        got = await asyncio.to_thread(stack.enter_context, lock)
        try:
            yield got
        finally:
            await asyncio.to_thread(stack.close)


class Row(Protocol):
    """One row; columns by name."""

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
    """A database. `name` is shown to people (without a password); `notices` are sentences about repairs."""

    name: str
    notices: list[str]

    @abstractmethod
    def prepare(self) -> None:
        """Create what is missing. Raise ConfigError or OSError if the database cannot be used."""

    @abstractmethod
    def close(self) -> None:
        """Close what is held open."""

    @abstractmethod
    def connect(self) -> AbstractContextManager[Connection]:
        """Open a connection for one operation, and commit or roll back at the end. Raise DatabaseFailed."""

    @abstractmethod
    def failure(self, error: BaseException) -> DatabaseFailed | None:
        """Convert a library's exception to the error of this database; None if the exception is about
        something else.
        """

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Hold a lock among all processes that share the database. Yield False if it is taken."""

    @abstractmethod
    def compact(self) -> int:
        """Return the space of deleted rows to the disk. Return the bytes, if they are known, else 0."""

    @abstractmethod
    def packed(self, vector: list[float]) -> object:
        """Encode a vector for the column `vectors.vector`."""

    @abstractmethod
    def unpacked(self, value: Any) -> list[float]:
        """Decode a value of the column `vectors.vector`."""

    def meta(self, key: str) -> str | None:
        """Return the value stored under `key`, or None."""
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
