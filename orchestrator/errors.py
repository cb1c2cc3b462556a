"""Every error of the orchestrator.

OrchestratorError
├── ConfigError            a setting is wrong or missing; the process ends with exit code 78
│   └── NameTaken            another process already uses this VESTAL_WORKER_ID
├── IdempotencyConflict    the key belongs to an accepted task with another goal or other agents
├── QueueFull              the limit of unfinished tasks is reached; a new one is not accepted
├── DatabaseFailed         SQLite or Postgres is unavailable: a full disk, a lock, no connection
│   └── NewerDatabase        a newer version of Vestal wrote it; at the start this is a ConfigError
├── BackendError           a backend did not do what was asked
│   ├── BackendUnavailable   down, hanging or refusing; try later or another backend
│   │   ├── BackendBusy        it works, but has no room for the request at present (429, 503)
│   │   └── BatchTimedOut      it works, but does not embed so many texts in time; it may embed fewer
│   ├── BackendFailed        it answered with an error (5xx, or 404 for a model that it lists)
│   │   └── EngineCrashed      it gave the request up because of its engine; the request may have killed it
│   ├── ModelMissing         there are healthy backends, but none has the model
│   ├── EmptyAnswer          200 with an empty answer (a dead Metal context does this for hours)
│   └── RequestRejected      4xx, 507 or a model that only thinks: the same request fails again
│       ├── MachineTooSmall    507: its machine can never hold the request; a larger machine may
│       └── OnlyThought        the model thought, and gave no answer
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


class NewerDatabase(DatabaseFailed):
    pass


class BackendError(OrchestratorError):
    code = "backend_error"


class BackendUnavailable(BackendError):
    code = "backend_unavailable"
    retryable = True


class BackendBusy(BackendUnavailable):
    """The backend works, but has no room for the request at present. `retry_after_s` is how many seconds it
    asks to wait; 0 if it does not say.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BatchTimedOut(BackendUnavailable):
    """The backend is alive, but did not embed several texts within the time limit. It may succeed with
    fewer texts.
    """


class BackendFailed(BackendError):
    code = "backend_failed"
    retryable = True


class EngineCrashed(BackendFailed):
    """The gateway gave the request up because of its engine, mostly because the engine died three times while
    it ran this request.
    """


class ModelMissing(BackendError):
    code = "model_missing"
    retryable = True


class EmptyAnswer(BackendError):
    code = "empty_answer"
    retryable = True


class RequestRejected(BackendError):
    code = "request_rejected"


class MachineTooSmall(RequestRejected):
    """The backend's machine has too little memory or disk for the request, and waiting does not help. A
    backend on another machine may have enough.
    """


class OnlyThought(RequestRejected):
    """The model thought, and gave no answer. `cut_off` says whether the limit of tokens ended its thinking,
    so that a higher limit may help.
    """

    def __init__(self, message: str, cut_off: bool) -> None:
        super().__init__(message)
        self.cut_off = cut_off


class TaskFailed(OrchestratorError):
    code = "task_failed"
