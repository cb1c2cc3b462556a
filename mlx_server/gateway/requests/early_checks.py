"""Decide which requests an engine checks before it is their turn to run. Pure.

A waiting request is checked as soon as there is an engine, so that its client learns within the first second
whether the request can be served at all. Until then a stream has not begun, and an error has its own HTTP
status.
"""

from __future__ import annotations

MAX_AT_ONCE = 4
"""How many checks an engine may hold at once. The limit is needed because each request may be many
megabytes."""

MAX_TRIES = 2
"""How many engines a check is sent to. If none of them has answered, the check itself may have ended the
engines, and the request runs unchecked."""


class EarlyChecks:
    """Tracks the checks of waiting requests. A check asks an engine, before it is the request's turn to run,
    whether the engine can serve the request. Some checks are still to be sent; the others were sent to the
    current engine, which has not answered them yet.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}  # request id -> how often its check was sent
        self._sent: dict[str, int] = {}

    def add(self, request_id: str) -> None:
        """Add a waiting request. An engine is to check whether it can serve the request, before the request's
        turn to run comes.
        """
        self._waiting[request_id] = 0

    def forget(self, request_id: str) -> None:
        """Remove a request that has ended."""
        self._waiting.pop(request_id, None)
        self._sent.pop(request_id, None)

    def answered(self, request_id: str) -> bool:
        """Record that the engine has answered whether it can serve this request. Return True; return False if
        the current engine had no unanswered check of this request.
        """
        return self._sent.pop(request_id, None) is not None

    def engine_lost(self) -> None:
        """Queue again, after the others, the checks that a lost engine has not answered. Drop the checks that
        were sent MAX_TRIES times.
        """
        self._waiting |= {each: tries for each, tries in self._sent.items() if tries < MAX_TRIES}
        self._sent.clear()

    def take(self) -> list[str]:
        """Return the ids of the requests whose checks must be sent to the engine now, and record these checks
        as sent. A check asks the engine whether it can serve the request. Checks are sent in their order in
        the queue, while fewer than MAX_AT_ONCE are unanswered. Return [] if none must be sent now.
        """
        due = list(self._waiting)[: MAX_AT_ONCE - len(self._sent)]
        for request_id in due:
            self._sent[request_id] = self._waiting.pop(request_id) + 1
        return due
