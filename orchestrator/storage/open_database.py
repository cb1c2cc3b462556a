"""Open the database that the settings name."""

from __future__ import annotations

from orchestrator.config import Config
from orchestrator.errors import ConfigError, DatabaseFailed
from orchestrator.events import emit
from orchestrator.storage.database import Database
from orchestrator.storage.failures import cause_of
from orchestrator.storage.sqlite import SqliteDatabase


def open_database(config: Config) -> Database:
    """Return the database, ready for use; a SQLite file on a disk that is full or read-only is used later.

    Raise ConfigError for a permanent fault, DatabaseFailed if Postgres does not answer.
    """
    if config.database_url:
        from orchestrator.storage.postgres import PostgresDatabase

        database: Database = PostgresDatabase(config.database_url)
        database.prepare()
        return database
    database = SqliteDatabase(config.database)
    try:
        database.prepare()
    except OSError as error:
        if cause_of(error) is None:
            message = f"VESTAL_HOME={config.home} cannot be written to ({error}); give it another."
            raise ConfigError(message) from None
        emit("database_awaited", str(error), database=database.name)
    except DatabaseFailed as error:
        emit("database_awaited", error.message, database=database.name)
    return database
