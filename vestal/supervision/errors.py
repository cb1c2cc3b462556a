"""What can go wrong in supervision.

    SupervisionError
    ├── SpecError          a child spec that cannot work (two of one name, no command)
    ├── UnknownChild       no child of that name
    ├── StoppedByHand      a restart was asked for a child that a person stopped
    ├── LaunchError        no process came of the command (not found, not executable, no such folder)
    ├── StopTimeout        the process did not end, not even on SIGKILL
    └── WaitTimeout        the state waited for did not come in time

Each has a stable `code`, a `message` that names the culprit and the remedy, and `retryable`.
"""

from __future__ import annotations

from typing import Any


class SupervisionError(Exception):
    """The root. `fields` hold what the message says, for programs."""

    code = "supervision_error"
    retryable = False

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "retryable": self.retryable, **self.fields}


class SpecError(SupervisionError):
    code = "bad_child_spec"


class UnknownChild(SupervisionError):
    code = "unknown_child"


class StoppedByHand(SupervisionError):
    code = "stopped_by_hand"


class LaunchError(SupervisionError):
    code = "launch_failed"
    retryable = True


class StopTimeout(SupervisionError):
    code = "stop_timed_out"


class WaitTimeout(SupervisionError):
    code = "wait_timed_out"
    retryable = True
