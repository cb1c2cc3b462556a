"""The actions that the request table returns for the dispatcher to carry out. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SendToEngine:
    """The action to send the request to the engine, with the tokens that its client already has."""

    id: str


@dataclass(frozen=True)
class CancelOnEngine:
    """The action to have the engine drop the request."""

    id: str


@dataclass(frozen=True)
class FailRequest:
    """The action to report to the client that its request failed. `retry_after_s` is the number of seconds
    after which another try may succeed, None if unknown.
    """

    id: str
    code: str
    message: str
    retry_after_s: float | None = None


Action = SendToEngine | CancelOnEngine | FailRequest

CRASHED_TOO_OFTEN = (
    "The engine crashed three times or more while it worked on this request, the last time on this request "
    "alone and without getting any further. The request is not repeated again."
)
KILLED_TOO_OFTEN = (
    "The engine was killed again and again while it worked on this request alone, each time at the same "
    "place. The request is not repeated again."
)
