"""Decide which requests an engine checks before it is their turn to run. Pure.

A request that waits is checked as soon as there is an engine, so that its client learns within the first
second that it can never be served: until then a stream has not begun, and an error has its own HTTP status.
"""

from __future__ import annotations

MAX_AT_ONCE = 4
"""Requests that an engine holds for a check at one time: each may be many megabytes."""

MAX_TRIES = 2
"""A check that so many engines have not answered may be what ended them. The request then runs unchecked."""


class EarlyChecks:
    """The requests that are to be checked, and those that the present engine is checking."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}  # request id -> how often its check was sent
        self._sent: dict[str, int] = {}

    def add(self, request_id: str) -> None:
        """Have the request checked."""
        self._waiting[request_id] = 0

    def forget(self, request_id: str) -> None:
        """Drop a request that has ended."""
        self._waiting.pop(request_id, None)
        self._sent.pop(request_id, None)

    def answered(self, request_id: str) -> bool:
        """Record the answer of the engine. Return False if none was expected."""
        return self._sent.pop(request_id, None) is not None

    def engine_lost(self) -> None:
        """Queue the checks that a lost engine has not answered again, after the others; drop those that were
        sent MAX_TRIES times.
        """
        self._waiting |= {each: tries for each, tries in self._sent.items() if tries < MAX_TRIES}
        self._sent.clear()

    def take(self) -> list[str]:
        """Return the ids of the requests whose checks are to be sent now, and count these as sent."""
        due = list(self._waiting)[: MAX_AT_ONCE - len(self._sent)]
        for request_id in due:
            self._sent[request_id] = self._waiting.pop(request_id) + 1
        return due
