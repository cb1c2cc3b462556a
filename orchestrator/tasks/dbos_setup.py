"""Configure DBOS: its database, the name of this process, and JSON as its storage format."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import TaskFailed
from orchestrator.storage.postgres_connection import IDLE_IN_TRANSACTION_S
from orchestrator.tasks.database import TaskDatabase

APPLICATION_VERSION = "tasks-1"
POOL_SIZE = 8


def import_dbos() -> Any:
    """Import DBOS and return the module. This is called when the first task needs it, because DBOS takes
    memory and time.
    """
    import dbos

    return dbos


def config_of(database: TaskDatabase) -> Any:
    """Return DBOS's configuration for this database."""
    return {
        "name": "vestal",
        "system_database_url": database.url,
        "sys_db_pool_size": POOL_SIZE,
        "db_engine_kwargs": database.sqlalchemy_options,
        # DBOS sets 60 s on each session, during which a worker that froze in a transaction blocked the
        # others.
        "sys_db_idle_transaction_timeout_sec": float(IDLE_IN_TRANSACTION_S),
        "application_version": APPLICATION_VERSION,
        "executor_id": database.executor,
        "log_level": "WARNING",
        "enable_otlp": False,
        "serializer": json_serializer(),
    }


def json_serializer() -> Any:
    """Return a serializer that stores data as JSON instead of pickle, so that the stored data is
    never code.
    """
    from dbos import Serializer

    class JsonSerializer(Serializer):
        def serialize(self, data: Any) -> str:
            return json.dumps(data, default=_failure)

        def deserialize(cls, serialized_data: str) -> Any:
            data = json.loads(serialized_data)
            return (
                TaskFailed(data["__failure__"]) if isinstance(data, dict) and "__failure__" in data else data
            )

        def name(self) -> str:
            return "vestal_json"

    return JsonSerializer()


def _failure(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"__failure__": str(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")
