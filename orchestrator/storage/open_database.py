"""Open the database that the settings name: SQLite or Postgres."""

from __future__ import annotations

from orchestrator.config import Config
from orchestrator.errors import ConfigError, DatabaseFailed
from orchestrator.events import emit
from orchestrator.storage.database import Database
from orchestrator.storage.failures import cause_of
from orchestrator.storage.sqlite import SqliteDatabase


def open_database(config: Config) -> Database:
    """Return the database that the settings name, ready for use.

    A SQLite database is also returned while its disk is full or read-only; its tables are then created at the
    first use after that. Raises ConfigError if the database can never be used, and DatabaseFailed if Postgres
    does not answer.
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
