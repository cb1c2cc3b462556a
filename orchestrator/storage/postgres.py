"""Implement the database on Postgres with pgvector, shared by all orchestrators and workers with the same
VESTAL_DATABASE_URL.

Connections come from a small pool.
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
from orchestrator.storage.failures import ADVICE, FailureCause, cause_of, newer_tables
from orchestrator.storage.postgres_connection import CONNECT_WITHIN_S, SCHEMA, session_options, settings
from orchestrator.storage.postgres_errors import START_IT, meanwhile, one_line, remedy

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

EXTENSIONS = (
    "extensions"  # some Postgres services install pgvector in this schema; a missing schema is ignored
)
MAX_CONNECTIONS = 4
RECONNECT_FOR_S = 2.0
WAIT_FOR_SERVER_S = 60.0
KEY = "hashtextextended(%s, 0)"


class PostgresDatabase(Database):
    """Implements `Database` on Postgres. Its `name`, which messages show, has the server's host and port and
    the name of the database, but no password.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self.name = f"Postgres at {parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        self.notices: list[str] = []
        self._pool: ConnectionPool[Any] | None = None
        self._opening = threading.Lock()

    def prepare(self) -> None:
        """Wait for the server, then migrate the tables to this version. One process does so while others
        wait.

        Raises ConfigError if waiting does not help, and DatabaseFailed if the server cannot be used within a
        minute.
        """
        adopt_logger(
            "psycopg", logging.ERROR
        )  # psycopg logs each failed attempt; this method logs each reason once
        deadline = time.monotonic() + WAIT_FOR_SERVER_S
        last_obstacle = ""
        while (obstacle := self._try_to_migrate()) is not None:
            if time.monotonic() >= deadline:
                raise DatabaseFailed(
                    f"{self.name} cannot be used for now ({obstacle}): {meanwhile(obstacle, START_IT)}."
                )
            if obstacle != last_obstacle:
                emit("database_awaited", obstacle, database=self.name)
            last_obstacle = obstacle
            time.sleep(1.0)

    def _try_to_migrate(self) -> str | None:
        """Migrate the tables, and return None, or why that is impossible for now. Raises ConfigError if
        waiting does not help.
        """
        import psycopg

        try:
            with self._connected() as connection:
                _migrate(connection, self.name)
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

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        """Convert the exception to an error about this server; None if it is not about a database. The error
        omits the password, which libpq may quote.
        """
        cause = cause_of(error)
        return None if cause is None else self._failed(error, cause)

    def _failed(self, error: BaseException, cause: FailureCause | None = None) -> DatabaseFailed:
        reason = one_line(getattr(error, "orig", None) or error, self._url)
        advice = meanwhile(reason, ADVICE[cause or cause_of(error) or FailureCause.OTHER])
        return DatabaseFailed(f"{self.name} cannot be used ({reason}): {advice}.")

    @contextmanager
    def connect(self) -> Iterator[_Connection]:
        import psycopg
        from psycopg_pool import PoolTimeout

        try:
            with self._opened().connection() as connection:
                yield _Connection(connection)
        except (psycopg.Error, PoolTimeout) as error:
            raise self._failed(error) from error

    def _opened(self) -> ConnectionPool[Any]:
        from psycopg_pool import ConnectionPool

        with self._opening:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._url,
                    kwargs=_connection_settings(),
                    min_size=0,
                    max_size=MAX_CONNECTIONS,
                    timeout=CONNECT_WITHIN_S,
                    # After this time, the next caller tries again. The pool's own attempts double their
                    # pauses for five minutes, so a server that was away for a minute would be missed for
                    # another.
                    reconnect_timeout=RECONNECT_FOR_S,
                    check=ConnectionPool.check_connection,  # so that no dead connection is used
                    open=True,
                )
            return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Try to take an advisory lock on a separate connection, and yield whether that succeeded. The server
        frees the lock when this process dies.
        """
        import psycopg

        with self._transaction() as connection:
            connection.autocommit = True
            got = _got(connection, f"SELECT pg_try_advisory_lock({KEY}) AS got", name)
            try:
                yield got
            finally:
                # The server notices a closed connection only later; until then the lock would remain.
                if got:
                    with suppress(psycopg.Error):
                        _got(connection, f"SELECT pg_advisory_unlock({KEY}) AS got", name)

    def hold_lock(self, name: str) -> HeldLock | None:
        """Take the lock `name`, which is held until `HeldLock.end` is called or this process dies. Return
        None if another process has it. Raises DatabaseFailed if the server fails.
        """
        import psycopg

        with ExitStack() as stack:
            try:
                connection = stack.enter_context(closing(self._connected()))
                connection.autocommit = True
                if not _got(connection, f"SELECT pg_try_advisory_lock({KEY}) AS got", name):
                    return None
            except psycopg.Error as error:
                raise self._failed(error) from error
            stack.pop_all()
            return HeldLock(connection)

    @contextmanager
    def briefly_locked(self, name: str) -> Iterator[None]:
        """Wait, without a limit, for the lock `name`, and hold it during the `with` block. Raises
        DatabaseFailed if the server fails.

        If the block takes longer than IDLE_IN_TRANSACTION_S seconds, the server releases the lock, so that a
        frozen process does not keep it. The block continues without the lock, and its end raises
        DatabaseFailed.
        """
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
            raise self._failed(error) from error

    def compact(self) -> int:
        return 0  # the server's autovacuum does this

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


class HeldLock:
    """An advisory lock on a separate connection. The server frees it when this process dies."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def holds(self) -> bool:
        """Return True if the lock is still held; False if the connection is lost, and the lock with it."""
        import psycopg

        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def end(self) -> None:
        """Release the lock in the database, so that another process can take it."""
        self._connection.close()


class _Connection:
    """Adapts psycopg's connection to the interface `Connection`, with `?` as placeholder."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(_translated(statement), _without_nul(values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(statement), [_without_nul(row) for row in rows])


def _translated(statement: str) -> Any:
    return statement.replace("%", "%%").replace("?", "%s")


def _without_nul(values: Sequence[Any]) -> list[Any]:
    """Return the values with U+FFFD in place of NUL, which a text in Postgres cannot contain."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]


def _migrate(connection: psycopg.Connection[Any], name: str) -> None:
    """Migrate the tables in one transaction, under a lock, so that a kill in the middle changes nothing.
    Raises ConfigError if a newer version of Vestal has already migrated them; `name` is the database's name
    in the error message.
    """
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
        if done > len(postgres_schema.VERSIONS):
            raise ConfigError(newer_tables(name, done, len(postgres_schema.VERSIONS), "VESTAL_DATABASE_URL"))
        for version, statements in enumerate(postgres_schema.VERSIONS, 1):
            if version <= done:
                continue
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"INSERT INTO {SCHEMA}.versions VALUES (%s, now())", (version,))
            emit("database_migrated", version=version)
