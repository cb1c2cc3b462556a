"""Postgres with pgvector, shared by every orchestrator and worker that VESTAL_DATABASE_URL is given to.

Connections come from a small pool. A server that is away is waited for, never a reason to give up for good.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, DatabaseFailed
from orchestrator.events import adopt_logger, emit
from orchestrator.storage import postgres_schema
from orchestrator.storage.database import Database
from orchestrator.storage.postgres_connection import CONNECT_WITHIN_S, SCHEMA, session_options, settings
from orchestrator.storage.postgres_errors import meanwhile, one_line, remedy

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

EXTENSIONS = "extensions"  # where some hosts of Postgres put pgvector; one that is not there is ignored
MOST_CONNECTIONS = 4
RECONNECT_FOR_S = 2.0
WAIT_FOR_SERVER_S = 60.0
KEY = "hashtextextended(%s, 0)"


class PostgresDatabase(Database):
    """`name` has no password in it."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self.name = f"Postgres at {parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        self.notices: list[str] = []
        self._pool: ConnectionPool[Any] | None = None
        self._opening = threading.Lock()

    def prepare(self) -> None:
        """Wait for the server, then bring the tables to this version: one process does, the others wait."""
        adopt_logger("psycopg", logging.ERROR)  # it tells each failed attempt; who asked tells it once
        deadline = time.monotonic() + WAIT_FOR_SERVER_S
        said = ""
        while (trouble := self._try_to_migrate()) is not None:
            if time.monotonic() >= deadline:
                raise DatabaseFailed(f"{self.name} cannot be used for now ({trouble}): {meanwhile(trouble)}.")
            if trouble != said:
                emit("database_awaited", trouble, database=self.name)
            said = trouble
            time.sleep(1.0)

    def _try_to_migrate(self) -> str | None:
        """What stands in the way for now, or None; ConfigError where waiting will not help."""
        import psycopg

        try:
            with self._connected() as connection:
                _migrate(connection)
        except psycopg.Error as error:
            sentence = one_line(error, self._url)
            cure = remedy(sentence, unusable_url=isinstance(error, psycopg.ProgrammingError))
            if cure is not None:
                raise ConfigError(f"{self.name} cannot be used: {sentence}. {cure}") from None
            return sentence
        return None

    def _connected(self) -> psycopg.Connection[Any]:
        import psycopg

        return psycopg.connect(self._url, **_connection_settings())

    def failure(self, error: BaseException) -> DatabaseFailed:
        """What befell it, in words without the password."""
        said = one_line(error, self._url)
        return DatabaseFailed(f"{self.name} cannot be used ({said}).")

    @contextmanager
    def connect(self) -> Iterator[_Connection]:
        import psycopg
        from psycopg_pool import PoolTimeout

        try:
            with self._opened().connection() as connection:
                yield _Connection(connection)
        except (psycopg.Error, PoolTimeout) as error:
            raise self.failure(error) from error

    def _opened(self) -> ConnectionPool[Any]:
        from psycopg_pool import ConnectionPool

        with self._opening:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._url,
                    kwargs=_connection_settings(),
                    min_size=0,
                    max_size=MOST_CONNECTIONS,
                    timeout=CONNECT_WITHIN_S,
                    # Then whoever asks next tries anew. The pool's own attempts double their pauses for five
                    # minutes: a server that was away for one would not be seen for another.
                    reconnect_timeout=RECONNECT_FOR_S,
                    check=ConnectionPool.check_connection,  # one that died with the server is not handed out
                    open=True,
                )
            return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Held by a connection of its own: the server frees it when its holder is gone."""
        import psycopg

        with self._transaction() as connection:
            connection.autocommit = True
            got = _got(connection, f"SELECT pg_try_advisory_lock({KEY}) AS got", name)
            try:
                yield got
            finally:
                # The server notices a closed connection some time later; until then it would stay locked.
                if got:
                    with suppress(psycopg.Error):
                        _got(connection, f"SELECT pg_advisory_unlock({KEY}) AS got", name)

    def claim(self, name: str) -> Claim | None:
        """Hold a lock of that name for as long as this process lives, or None where another has it."""
        import psycopg

        with ExitStack() as undone:
            try:
                connection = undone.enter_context(closing(self._connected()))
                connection.autocommit = True
                if not _got(connection, f"SELECT pg_try_advisory_lock({KEY}) AS got", name):
                    return None
            except psycopg.Error as error:
                raise self.failure(error) from error
            undone.pop_all()
            return Claim(connection)

    @contextmanager
    def briefly_locked(self, name: str) -> Iterator[None]:
        """Wait for that lock; it lasts as long as a transaction, and one who freezes with it loses it."""
        with self._transaction() as connection:
            _got(connection, f"SELECT true AS got FROM pg_advisory_xact_lock({KEY})", name)
            yield

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        import psycopg

        try:
            with self._connected() as connection:
                yield connection
        except psycopg.Error as error:
            raise self.failure(error) from error

    def compact(self) -> int:
        return 0  # the server's autovacuum does it, at its own time

    def packed(self, vector: list[float]) -> str:
        return json.dumps(vector)

    def unpacked(self, value: str) -> list[float]:
        found: list[float] = json.loads(value)
        return found


def _got(connection: psycopg.Connection[Any], statement: LiteralString, name: str) -> bool:
    row = connection.execute(statement, (f"vestal: {name}",)).fetchone()
    return bool(row and row["got"])


def _connection_settings() -> dict[str, Any]:
    from psycopg.rows import dict_row

    options = session_options(f"-c search_path={SCHEMA},public,{EXTENSIONS}")
    return {"row_factory": dict_row, **settings("vestal", options)}


class Claim:
    """A lock, held by a connection that does nothing else; the server frees it when this process is gone."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def holds(self) -> bool:
        """False once the connection is lost, and the lock with it."""
        import psycopg

        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def end(self) -> None:
        self._connection.close()


class _Connection:
    """psycopg's connection, spoken to as SQLite's is."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(_translated(statement), _sound(values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(statement), [_sound(row) for row in rows])


def _translated(statement: str) -> Any:
    return statement.replace("%", "%%").replace("?", "%s")


def _sound(values: Sequence[Any]) -> list[Any]:
    """A text in Postgres cannot have the character NUL."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]


def _migrate(connection: psycopg.Connection[Any]) -> None:
    """All in one transaction, under a lock that lasts as long: killed in the middle, nothing was done."""
    with connection.transaction():
        _got(connection, f"SELECT true AS got FROM pg_advisory_xact_lock({KEY})", "migration")
        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
            connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {SCHEMA}.versions (version INTEGER PRIMARY KEY, at TIMESTAMPTZ)"
        )
        row = connection.execute(f"SELECT coalesce(max(version), 0) AS v FROM {SCHEMA}.versions").fetchone()
        done = row["v"] if row else 0
        for version, statements in enumerate(postgres_schema.VERSIONS, 1):
            if version <= done:
                continue
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"INSERT INTO {SCHEMA}.versions VALUES (%s, now())", (version,))
            emit("database_migrated", version=version)
