"""Open the database that the settings name."""

from __future__ import annotations

from orchestrator.config import Config
from orchestrator.errors import ConfigError
from orchestrator.storage.database import Database
from orchestrator.storage.sqlite import SqliteDatabase


def open_database(config: Config) -> Database:
    """Return the database, ready for use.

    Raise ConfigError for a permanent fault, DatabaseFailed for a temporary one.
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
        raise ConfigError(
            f"VESTAL_HOME={config.home} cannot be written to ({error}); give it another."
        ) from None
    return database
