"""How DBOS is set up: its database, its name for this process, and JSON for all that it stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import DatabaseFailed, TaskFailed
from orchestrator.storage.postgres_connection import IDLE_IN_TRANSACTION_S
from orchestrator.tasks.database import TaskDatabase

APPLICATION_VERSION = "tasks-1"
POOL_SIZE = 8


def imported() -> Any:
    import dbos

    return dbos


def config_of(database: TaskDatabase) -> Any:
    return {
        "name": "vestal",
        "system_database_url": database.url,
        "sys_db_pool_size": POOL_SIZE,
        "db_engine_kwargs": database.engine_settings,
        # Its own is 60 s, set on each session: so long a worker frozen in mid-transaction held up the others.
        "sys_db_idle_transaction_timeout_sec": float(IDLE_IN_TRANSACTION_S),
        "application_version": APPLICATION_VERSION,
        "executor_id": database.executor,
        "log_level": "WARNING",
        "enable_otlp": False,
        "serializer": json_serializer(),
    }


@contextmanager
def failures_told() -> Iterator[None]:
    """The database's errors in its own words; DatabaseFailed."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DatabaseFailed(f"the tasks' database cannot be used ({said}).") from error


def json_serializer() -> Any:
    """JSON in the place of DBOS's pickle: what lies in the volume must never be code."""
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
