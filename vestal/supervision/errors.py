"""The errors of supervision. Pure.

    SupervisionError
    ├── SpecError          a child spec cannot work (two children have one name, or there is no command)
    ├── UnknownChild       there is no child of that name
    ├── StoppedByHand      a restart was requested for a child that a person stopped
    ├── SupervisorStopped  the supervisor was stopped, and starts nothing any more
    ├── LaunchError        the command started no process (not found, not executable, no such folder)
    ├── HandoverRefused    no successor took over; the process goes on as before
    ├── StopTimeout        the process did not end, not even on SIGKILL
    └── WaitTimeout        the child did not reach the state in time

Each has a stable `code`, a `message` that names the culprit and the remedy, and `retryable`, which says
whether the same call may succeed later.
"""

from __future__ import annotations

from typing import Any


class SupervisionError(Exception):
    """The base class of the supervision errors. `fields` repeat the facts of the message for programs."""

    code = "supervision_error"
    retryable = False

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def as_json(self) -> dict[str, Any]:
        """Return the error as one flat dictionary for JSON."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable, **self.fields}


class SpecError(SupervisionError):
    """A child spec that cannot work: it has no name or no command, or its name is another child's too."""

    code = "bad_child_spec"


class UnknownChild(SupervisionError):
    """There is no child of that name."""

    code = "unknown_child"


class StoppedByHand(SupervisionError):
    """A restart was requested of a child that a person stopped: only a person's start brings it back."""

    code = "stopped_by_hand"


class SupervisorStopped(SupervisionError):
    """The supervisor was stopped or detached, and starts no child until it is started again itself."""

    code = "supervisor_stopped"
    retryable = True


class LaunchError(SupervisionError):
    """The command started no process."""

    code = "launch_failed"
    retryable = True


class HandoverRefused(SupervisionError):
    """No successor took over; the process goes on as before. The message says why."""

    code = "handover_refused"
    retryable = True


class StopTimeout(SupervisionError):
    """The process did not end on SIGKILL."""

    code = "stop_timed_out"


class WaitTimeout(SupervisionError):
    """The child did not reach in time any of the states that the caller waits for."""

    code = "wait_timed_out"
    retryable = True
