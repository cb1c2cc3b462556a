"""Every error of the orchestrator.

OrchestratorError
├── ConfigError            a setting is wrong or missing; the process ends with exit code 78
│   └── NameTaken            another process already uses this VESTAL_WORKER_ID
├── IdempotencyConflict    the key belongs to an accepted task with another goal or other agents
├── QueueFull              the limit of unfinished tasks is reached; a new one is not accepted
├── DatabaseFailed         SQLite or Postgres is unavailable: a full disk, a lock, no connection
├── BackendError           a backend did not do what was asked
│   ├── BackendUnavailable   down, hanging or refusing; try later or another backend
│   ├── BackendFailed        it answered with an error (5xx, or 404 for a model that it lists)
│   ├── ModelMissing         there are healthy backends, but none has the model
│   ├── EmptyAnswer          200 with an empty answer (a dead Metal context does this for hours)
│   └── RequestRejected      4xx: trying again does not help
└── TaskFailed             a step of a task failed and is not tried again; the message says why
"""

from __future__ import annotations

TRY_AGAIN_EXIT_CODE = 75  # EX_TEMPFAIL: the supervisor starts the process again
CONFIG_EXIT_CODE = 78  # EX_CONFIG: the supervisor does not start the process again


class OrchestratorError(Exception):
    """Base class: `code` is a stable word for programs, `message` a sentence for people. `retryable` says
    whether trying again can help.
    """

    code = "internal_error"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(OrchestratorError):
    code = "bad_configuration"


class NameTaken(ConfigError):
    code = "worker_name_taken"


class IdempotencyConflict(OrchestratorError):
    code = "idempotency_conflict"


class QueueFull(OrchestratorError):
    code = "queue_full"
    retryable = True


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
