"""Every error of the orchestrator.

OrchestratorError
├── ConfigError            a setting is wrong or missing; the start stops, exit code 78
│   └── NameTaken            another process has this VESTAL_WORKER_ID
├── RequestRefused         an API request that cannot be served; carries its HTTP status
├── IdempotencyConflict    the key of a task that was accepted already, with another goal or other agents
├── DatabaseFailed         SQLite or Postgres cannot be used just now: a full disk, a lock, no connection
├── BackendError           an LLM backend did not do what was asked
│   ├── BackendUnavailable   down, hanging or refusing: another time, or another backend
│   ├── BackendFailed        it answered, with an error of its own (5xx, or 404 for a model it lists)
│   ├── ModelMissing         healthy backends there are, but none has the model
│   ├── EmptyAnswer          200 with nothing in it (a dead Metal context does this for hours)
│   └── RequestRejected      4xx: asking again will not help
└── TaskFailed             a task's step gave up; the message says why
"""

from __future__ import annotations

TRY_AGAIN_EXIT_CODE = 75  # EX_TEMPFAIL: a supervisor that sees it starts us again
CONFIG_EXIT_CODE = 78  # EX_CONFIG: one that sees this does not


class OrchestratorError(Exception):
    """Base: a stable `code`, one sentence in `message`, and whether trying again can help."""

    code = "internal_error"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(OrchestratorError):
    code = "bad_configuration"


class NameTaken(ConfigError):
    code = "worker_name_taken"


class RequestRefused(OrchestratorError):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class IdempotencyConflict(OrchestratorError):
    code = "idempotency_conflict"


class DatabaseFailed(OrchestratorError):
    code = "database_unavailable"
    retryable = True


class BackendError(OrchestratorError):
    code = "backend_error"


class BackendUnavailable(BackendError):
    code = "backend_unavailable"
    retryable = True


class BackendFailed(BackendError):
    code = "backend_failed"
    retryable = True


class ModelMissing(BackendError):
    code = "model_missing"
    retryable = True


class EmptyAnswer(BackendError):
    code = "empty_answer"
    retryable = True


class RequestRejected(BackendError):
    code = "request_rejected"


class TaskFailed(OrchestratorError):
    code = "task_failed"
