"""What the stores ask of a database. SQLite and Postgres understand the statements that they share.

Placeholders are `?`, a row is read by its columns' names, `ON CONFLICT` and `RETURNING` are used in the forms
that both have. What only one of them can do (ranking by words or by vectors, compaction) is asked by name.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, Protocol


@asynccontextmanager
async def entered(lock: AbstractContextManager[bool]) -> AsyncIterator[bool]:
    """Database.lock where nobody else may be held up: a server that hangs is waited for in a thread."""
    with ExitStack() as held:
        got = await asyncio.to_thread(held.enter_context, lock)
        try:
            yield got
        finally:
            await asyncio.to_thread(held.close)


class Row(Protocol):
    def __getitem__(self, name: str, /) -> Any: ...


class Result(Protocol):
    rowcount: int

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> list[Row]: ...

    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Result: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object: ...


class Database(ABC):
    """`name` is what a person calls it; `notices` says in words what had to be done to open it."""

    name: str
    notices: list[str]

    @abstractmethod
    def prepare(self) -> None:
        """Make what is missing; ConfigError or OSError where it cannot be used."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held open."""

    @abstractmethod
    def connect(self) -> AbstractContextManager[Connection]:
        """A connection for one operation, committed at the end or rolled back; DatabaseFailed."""

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Hold a lock of that name, of all who share the database, if it is free; yields whether it was."""

    @abstractmethod
    def compact(self) -> int:
        """Give back the space of what was deleted; returns the bytes, as far as they are known."""

    @abstractmethod
    def packed(self, vector: list[float]) -> object:
        """The vector as a value of the column `vectors.vector`."""

    @abstractmethod
    def unpacked(self, value: Any) -> list[float]:
        """The vector that such a value is."""

    def meta(self, key: str) -> str | None:
        with self.connect() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        with self.connect() as db:
            db.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
